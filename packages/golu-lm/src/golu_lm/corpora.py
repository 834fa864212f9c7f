"""Where text comes from: the hub, files of your own, and the language reference inside every CPython."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from golu_core.training.errors import RequestError

SPLITS = ("train", "test")


class Piece(NamedTuple):
    """A stretch of text that is tokenized by itself.

    Attributes:
        text: a document, or a part of one that ends where GPT-2's pattern would cut anyway.
        ends_document: whether the end-of-text token follows.
        next_position: where the corpus continues after it.
    """

    text: str
    ends_document: bool
    next_position: int


class Corpus(Protocol):
    """Text in two splits.

    Attributes:
        source: what it is, for meta.json and to tell whether two requests are the same.
    """

    source: dict[str, Any]

    def size(self, split: str) -> int:
        """The position after the last piece: bytes of a text file, documents of everything else."""
        ...

    def pieces(self, split: str, position: int) -> Iterator[Piece]:
        """The pieces of a split from a position on."""
        ...


@dataclass(frozen=True)
class HubCorpus:
    """A data set of the hub.

    Attributes:
        path: id on the hub.
        test_split: its test split; none if one is cut off by `test_size`.
        test_size, seed: of the cut, by `datasets`' train_test_split.
    """

    path: str
    test_split: str | None = None
    test_size: float = 0.0005
    seed: int = 2357


HUB_CORPORA = {
    "tinystories": HubCorpus("roneneldan/TinyStories", test_split="validation"),
    # nanoGPT's split of OpenWebText, of which the paper's is a copy
    "openwebtext": HubCorpus("Skylion007/openwebtext", test_size=0.0005, seed=2357),
}


TABLES = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv", ".tsv": "csv"}
"""Suffixes of files whose text is in a column, with the loader of `datasets` that reads them."""


class Documents:
    """Documents in lists, in the order in which they are tokenized."""

    def __init__(self, splits: Mapping[str, list[str]], source: dict[str, Any]) -> None:
        self.splits = splits
        self.source = source

    def size(self, split: str) -> int:
        """Documents of a split."""
        return len(self.splits[split])

    def pieces(self, split: str, position: int) -> Iterator[Piece]:
        """One piece a document."""
        for number, text in enumerate(self.splits[split][position:], position):
            yield Piece(text, True, number + 1)


class Rows:
    """The rows of a data set that `datasets` has loaded.

    Args:
        splits: by name, each with a column of text.
        column: its name.
    """

    _AT_ONCE = 1000

    def __init__(self, splits: Mapping[str, Any], column: str, source: dict[str, Any]) -> None:
        self.splits = splits
        self.column = column
        self.source = source
        for split, rows in splits.items():
            if column not in rows.column_names:
                raise RequestError(
                    f"{source} has no column {column!r} in {split}: "
                    f"name one of {', '.join(rows.column_names)} by --column"
                )

    def size(self, split: str) -> int:
        """Rows of a split."""
        return len(self.splits[split])

    def pieces(self, split: str, position: int) -> Iterator[Piece]:
        """One piece per row; RequestError for a row that is not text."""
        rows = self.splits[split]
        for start in range(position, len(rows), self._AT_ONCE):
            for number, text in enumerate(rows[start : start + self._AT_ONCE][self.column], start):
                if not isinstance(text, str):
                    raise RequestError(
                        f"row {_row_before_shuffling(rows, number):,}, counted from 0, of {self.source} holds "
                        f"{type(text).__name__} instead of text"
                    )
                yield Piece(text, True, number + 1)


def _row_before_shuffling(rows: Any, number: int) -> int:
    """The place in the file of a row that `datasets` may have shuffled."""
    indices = getattr(rows, "_indices", None)
    return number if indices is None else int(indices.column(0)[number].as_py())


# A space or newline before a character that is none. GPT-2's pattern always cuts here, also if what is before and what
# is after it are tokenized separately: it gives the last of several white spaces to what follows. Unicode's white
# spaces begin with the bytes C2, E1, E2 and E3, which are left out.
_CUT = re.compile(rb"[ \n](?=[!-~\xc3-\xe0\xe4-\xf4])")


_END_OF_TEXT = b"<|endoftext|>"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
}


class TextFile:
    """One text file; its end is the test split.

    It is read in parts, whose tokens are those of the whole, as Python's text mode reads it: every line end becomes
    one newline character, and a byte order mark is left out. `<|endoftext|>` separates documents; a file without it is
    one document.

    Args:
        path: of the file.
        test_size: share of the test split.
        separated: whether `<|endoftext|>` separates documents; otherwise it is text like any other.

    Raises:
        RequestError: the file is missing, empty, compressed, or is not UTF-8.
    """

    _PART = 1 << 20
    _LONGEST_WITHOUT_CUT = 1 << 24

    def __init__(self, path: Path, test_size: float, separated: bool = True) -> None:
        if not path.is_file():
            raise RequestError(f"there is no text file {path}")
        self.path = path
        self.separated = separated
        self.length = path.stat().st_size
        if self.length == 0:
            raise RequestError(f"the text file {path} is empty")
        with path.open("rb") as file:
            beginning = file.read(16)
        for magic, name in _COMPRESSED.items():
            if beginning.startswith(magic):
                raise RequestError(f"{path} is compressed by {name}: unpack it first")
        self.start = len(_BYTE_ORDER_MARK) if beginning.startswith(_BYTE_ORDER_MARK) else 0
        self.source = {"file": str(path.resolve()), "bytes": self.length, "test_size": test_size}
        if not separated:
            self.source["separated"] = False
        self.test_start = self._nearest_cut(int(self.length * (1 - test_size)))

    def _nearest_cut(self, near: int) -> int:
        start = max(self.start, near - self._PART)
        with self.path.open("rb") as file:
            file.seek(start)
            data = file.read(2 * self._PART)
        cuts = [start + _before_line_end(data, match.start()) for match in _CUT.finditer(data)]
        if cuts:
            return min(cuts, key=lambda cut: abs(cut - near))
        return start + _character_start(data, min(near - start, len(data) - 1))

    def size(self, split: str) -> int:
        """Bytes to the end of a split."""
        return self.test_start if split == "train" else self.length

    def pieces(self, split: str, position: int) -> Iterator[Piece]:
        """Documents, in parts of about a megabyte; RequestError for what is not UTF-8."""
        end = self.size(split)
        position = max(position, self.test_start if split == "test" else self.start)
        rest = b""
        with self.path.open("rb") as file:
            file.seek(position)
            while position < end:
                rest += file.read(min(self._PART, end - position - len(rest)))
                at_end = position + len(rest) == end
                cut = len(rest) if at_end else _last_cut(rest)
                if not cut and len(rest) >= self._LONGEST_WITHOUT_CUT:  # no white space at all
                    cut = _character_start(rest, len(rest) - 1)
                if cut:
                    yield from self._documents(rest[:cut], position, at_end)
                    position, rest = position + cut, rest[cut:]

    def _documents(self, data: bytes, position: int, at_end: bool) -> Iterator[Piece]:
        parts = data.split(_END_OF_TEXT) if self.separated else [data]
        for number, part in enumerate(parts, 1):
            is_last = number == len(parts)
            after = position + len(part) + (0 if is_last else len(_END_OF_TEXT))
            if part or (at_end and len(parts) == 1):
                yield Piece(self._decoded(part, position), not is_last or at_end, after)
            position = after

    def _decoded(self, data: bytes, position: int) -> str:
        try:
            return data.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
        except UnicodeDecodeError as error:
            raise RequestError(f"{self.path} is not UTF-8 text: byte {position + error.start:,} is wrong") from None


def _last_cut(data: bytes) -> int:
    """Where the last safe cut in the data is, 0 if there is none."""
    for match in reversed(list(_CUT.finditer(data, max(0, len(data) - 4096)))):
        return _before_line_end(data, match.start())
    cuts = [match.start() for match in _CUT.finditer(data)]
    return _before_line_end(data, cuts[-1]) if cuts else 0


def _before_line_end(data: bytes, cut: int) -> int:
    """The cut, moved before a carriage return: both characters of a line end stay together."""
    return cut - 1 if data[cut : cut + 1] == b"\n" and data[cut - 1 : cut] == b"\r" and cut else cut


def _character_start(data: bytes, place: int) -> int:
    """Where the character at a place begins."""
    while place > 0 and data[place] & 0xC0 == 0x80:
        place -= 1
    return place


def python_docs() -> Documents:
    """The language reference that ships inside CPython (`pydoc_data`), every eighth topic for the test.

    Topics quote each other: a paragraph that is also in a test topic is left out of the training topics.
    """
    from pydoc_data.topics import topics

    names = sorted(topics)
    test = [topics[name].strip() + "\n" for name in names[7::8]]
    held_out = {paragraph.strip() for text in test for paragraph in text.split("\n\n")}
    train = []
    for name in names:
        kept = [part for part in topics[name].strip().split("\n\n") if part.strip() not in held_out]
        if kept:
            train.append("\n\n".join(kept) + "\n")
    return Documents({"train": train, "test": test}, {"package": "pydoc_data"})


def check_dataset(dataset: str, test_size: float | None) -> None:
    """Raises RequestError for what `open_corpus` cannot open, before anything is downloaded."""
    if Path(dataset).is_dir():
        raise RequestError(f"{dataset!r} is a folder: name a file in it")
    if dataset not in (*HUB_CORPORA, "pydocs") and not Path(dataset).is_file():
        raise RequestError(f"{dataset!r} is neither a file nor one of {', '.join([*HUB_CORPORA, 'pydocs'])}")
    if test_size is not None and not 0 < test_size < 1:
        raise RequestError(f"--test-size must be between 0 and 1, not {test_size}")


def open_corpus(
    dataset: str,
    *,
    hub: str | None = None,
    revision: str | None = None,
    column: str = "text",
    test_size: float | None = None,
    seed: int | None = None,
    num_workers: int = 1,
    separated: bool = True,
) -> Corpus:
    """The corpus of a name in HUB_CORPORA, of `pydocs`, or of a file.

    Args:
        dataset: a name, or a path that ends in one of `TABLES`; any other file is plain text.
        hub: another id on the hub, or a local copy, for a name.
        revision: of the data set on the hub.
        column: that holds the text.
        test_size: part of the whole that becomes the test split, where there is none; of a text file its end.
        seed: of the random choice of test documents.
        num_workers: processes that load.
        separated: whether `<|endoftext|>` separates the documents of a text file.

    Raises:
        RequestError: there is no such data set, or it cannot be loaded.
    """
    check_dataset(dataset, test_size)
    if dataset == "pydocs":
        return python_docs()
    if dataset in HUB_CORPORA:
        corpus = HUB_CORPORA[dataset]
        loaded = _load(hub or corpus.path, revision=revision, num_proc=num_workers)
        test_split = corpus.test_split
        test_size, seed = test_size or corpus.test_size, corpus.seed if seed is None else seed
        source: dict[str, Any] = {"hub": hub or corpus.path, "revision": revision}
    else:
        path = Path(dataset)
        kind = TABLES.get(path.suffix.lower())
        if kind is None:
            return TextFile(path, test_size or 0.1, separated)
        loaded = _load(kind, data_files=str(path), **({"sep": "\t"} if path.suffix.lower() == ".tsv" else {}))
        test_split, test_size, seed = None, test_size or 0.05, 2357 if seed is None else seed
        source = {"file": str(path.resolve()), "bytes": path.stat().st_size}
    splits = {"train": loaded["train"], "test": loaded.get(test_split)} if test_split else {"train": loaded["train"]}
    if splits.get("test") is None:
        splits = loaded["train"].train_test_split(test_size=test_size, seed=seed, shuffle=True)
        source |= {"test_size": test_size, "seed": seed}
    return Rows({name: splits[name] for name in SPLITS}, column, source | {"column": column})


def _load(path: str, **options: Any) -> Any:
    import datasets

    try:
        if (Path(path) / "dataset_dict.json").exists():
            return datasets.load_from_disk(path)
        return datasets.load_dataset(path, **{name: value for name, value in options.items() if value is not None})
    except Exception as error:  # datasets, huggingface_hub and the network have their own
        what = options.get("data_files", path)
        raise RequestError(f"datasets cannot load {what}: {type(error).__name__}: {str(error)[:300]}") from None
