"""Sources of text: the hub, the user's own files, and the language reference included in CPython."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from golu_core.training import RequestError
from golu_core.training.data import load_dataset
from golu_core.training.storage import check_utf8, is_converted, opened, scratch_folder, uncompressed_name

from .own_files import OwnFiles, own_files
from .text_files import Piece, TextCorpus

SPLITS = ("train", "test")


class Corpus(Protocol):
    """Text in two splits.

    Attributes:
        source: Description of the source, for meta.json and for comparing two requests.
    """

    source: dict[str, Any]

    def size(self, split: str) -> int:
        """Return the position after the last piece: bytes in a text file, otherwise documents."""
        ...

    def pieces(self, split: str, position: int) -> Iterator[Piece]:
        """Yield the pieces of a split, starting at a position."""
        ...


@dataclass(frozen=True)
class HubCorpus:
    """A data set on the hub.

    Attributes:
        path: The id on the hub.
        test_split: The name of its test split; None if `test_size` of the data set is held out instead.
        test_size: The fraction held out by `datasets`' train_test_split.
    """

    path: str
    test_split: str | None = None
    test_size: float = 0.0005


HUB_CORPORA = {
    "tinystories": HubCorpus("roneneldan/TinyStories", test_split="validation"),
    # nanoGPT's split of OpenWebText, which the paper also uses
    "openwebtext": HubCorpus("Skylion007/openwebtext", test_size=0.0005),
}


def title(source: Mapping[str, Any]) -> str:
    """Return the name of a corpus in messages: its file, its folder, or its name on the hub."""
    return str(next((source[key] for key in ("file", "folder", "hub", "package") if key in source), "the text"))


class Documents:
    """Documents in lists, in the order of tokenization."""

    def __init__(self, splits: Mapping[str, list[str]], source: dict[str, Any]) -> None:
        self.splits = splits
        self.source = source

    def size(self, split: str) -> int:
        """Return the number of documents in a split."""
        return len(self.splits[split])

    def pieces(self, split: str, position: int) -> Iterator[Piece]:
        """Yield each document as one piece."""
        for number, text in enumerate(self.splits[split][position:], position):
            yield Piece(text, True, number + 1)


class Rows:
    """The rows of a data set loaded with `datasets`.

    Args:
        splits: The splits by name, each with a text column.
        column: The name of the text column.
        column_flag: The flag for the column, for messages.
    """

    _AT_ONCE = 1000

    def __init__(
        self, splits: Mapping[str, Any], column: str, source: dict[str, Any], column_flag: str = "--column"
    ) -> None:
        self.splits = splits
        self.column = column
        self.source = source
        for split, rows in splits.items():
            if column not in rows.column_names:
                raise RequestError(
                    f"{title(source)} has no column {column!r} in {split}: "
                    f"name one of {', '.join(rows.column_names)} by {column_flag}"
                )

    def size(self, split: str) -> int:
        """Return the number of rows in a split."""
        return len(self.splits[split])

    def pieces(self, split: str, position: int) -> Iterator[Piece]:
        """Yield each row as one piece; raise RequestError for a row that is not text."""
        rows = self.splits[split]
        for start in range(position, len(rows), self._AT_ONCE):
            for number, text in enumerate(rows[start : start + self._AT_ONCE][self.column], start):
                if not isinstance(text, str):
                    raise RequestError(
                        f"row {_row_before_shuffling(rows, number):,}, counted from 0, of {title(self.source)} holds "
                        f"{type(text).__name__} instead of text"
                    )
                yield Piece(text, True, number + 1)


def _row_before_shuffling(rows: Any, number: int) -> int:
    """Return the position in the file of a row that `datasets` may have shuffled."""
    indices = getattr(rows, "_indices", None)
    return number if indices is None else int(indices.column(0)[number].as_py())


def python_docs() -> Documents:
    """Return the language reference included in CPython (`pydoc_data`), with every eighth topic in the test split.

    Topics quote each other: paragraphs that also occur in a test topic are removed from the training topics.
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


@dataclass(frozen=True)
class Reading:
    """Options for reading a corpus; options that do not apply to the corpus must be left out.

    Attributes:
        hub: A different id on the hub, or a local copy, for a data set on the hub.
        revision: Revision of the data set on the hub.
        column: The text column, `text` by default; not for plain text.
        test_size: Fraction held out for testing if there is no test split; for plain text, the end is held out.
        seed: Seed for the random choice of test documents, nanoGPT's 2357 by default; not for plain text.
        split_on_endoftext: Whether `<|endoftext|>` separates the documents of plain text; True by default.
        column_flag: The flag for the column, for messages.
    """

    hub: str | None = None
    revision: str | None = None
    column: str | None = None
    test_size: float | None = None
    seed: int | None = None
    split_on_endoftext: bool | None = None
    column_flag: str = "--column"

    def refuse(self, names: str, what: str) -> None:
        """Raise RequestError if one of the named options is set."""
        for name in names.split():
            if getattr(self, name) is not None:
                flag = "--no-split-on-endoftext" if name == "split_on_endoftext" else f"--{name.replace('_', '-')}"
                raise RequestError(f"{flag} has no effect on {what}: leave it out")


def checked_dataset(dataset: str, reading: Reading) -> OwnFiles | None:
    """Return the files of a path, None for a name; raise RequestError before any download if it cannot be opened."""
    if reading.test_size is not None and not 0 < reading.test_size < 1:
        raise RequestError(f"--test-size must be between 0 and 1, not {reading.test_size}")
    if dataset == "pydocs":
        reading.refuse("hub revision column test_size seed split_on_endoftext", "pydocs")
    elif dataset in HUB_CORPORA:
        reading.refuse("split_on_endoftext", f"{dataset}, whose rows are documents")
        if HUB_CORPORA[dataset].test_split is not None:
            reading.refuse("test_size seed", f"{dataset}, which has a test split")
    elif Path(dataset).exists():
        files = own_files(Path(dataset))
        _check_own(files, reading)
        return files
    else:
        raise RequestError(f"{dataset!r} is neither a file, a folder, nor one of {', '.join([*HUB_CORPORA, 'pydocs'])}")
    return None


def _check_own(files: OwnFiles, reading: Reading) -> None:
    reading.refuse("hub revision", f"files, such as {files.train[0]}")
    if files.test:
        reading.refuse("test_size seed", f"{files.path}, which has a test split")
    if files.table is None:
        reading.refuse("column seed", f"plain text, such as {files.train[0]}")
    else:
        reading.refuse("split_on_endoftext", f"{files.train[0]}, whose rows are documents")


def open_corpus(dataset: str, reading: Reading | None = None, num_workers: int = 1) -> Corpus:
    """Open the corpus of a name in HUB_CORPORA, of `pydocs`, or of a file or folder.

    Args:
        dataset: A name or a path. Files with an extension in `TABLES` are tables, all others plain text.
        reading: Options for reading the corpus.
        num_workers: Number of loader processes.

    Raises:
        RequestError: The data set does not exist or cannot be loaded, or `reading` has an option that does not apply.
    """
    reading = reading or Reading()
    files = checked_dataset(dataset, reading)
    if files is not None:
        return open_files(files, reading)
    return python_docs() if dataset == "pydocs" else _hub_corpus(HUB_CORPORA[dataset], reading, num_workers)


def open_files(files: OwnFiles, reading: Reading) -> Corpus:
    """Open the corpus of files; raise RequestError as in `open_corpus`."""
    _check_own(files, reading)
    source: dict[str, Any] = dict(files.source)
    if files.table is None:
        separated = reading.split_on_endoftext is not False
        if not separated:
            source["separated"] = False
        test_size = reading.test_size or 0.1
        if not files.test:
            source["test_size"] = test_size
        return TextCorpus(files.train, files.test, test_size=test_size, separated=separated, source=source)
    with scratch_folder() as scratch:
        paths = {"train": files.train, "test": files.test}
        named = {split: [_unpacked(path, scratch) for path in found] for split, found in paths.items() if found}
        loaded = load_dataset(files.table, what=str(files.path), data_files=named, sep=files.separator)
    return _rows(loaded["train"], loaded.get("test"), reading, reading.test_size or 0.05, source)


def _unpacked(path: Path, scratch: Path) -> str:
    """Return the path of an uncompressed copy with UTF-8 text.

    `datasets` silently reads truncated zstd files, or only the first of several frames, and cuts text at NUL bytes.
    """
    plain = path
    if is_converted(path):
        plain = Path(tempfile.mkdtemp(dir=scratch)) / uncompressed_name(path).name
        with opened(path) as source, plain.open("wb") as target:
            shutil.copyfileobj(source, target)
    if uncompressed_name(path).suffix.lower() != ".parquet":
        check_utf8(plain, path)
    return str(plain)


def _hub_corpus(corpus: HubCorpus, reading: Reading, num_workers: int) -> Rows:
    path = reading.hub or corpus.path
    loaded = load_dataset(path, revision=reading.revision, num_proc=num_workers)
    test = loaded.get(corpus.test_split) if corpus.test_split else None
    source = {"hub": path, "revision": reading.revision}
    return _rows(loaded["train"], test, reading, reading.test_size or corpus.test_size, source)


def _rows(train: Any, test: Any | None, reading: Reading, test_size: float, source: dict[str, Any]) -> Rows:
    """Return both splits; if there is no test split, hold one out at random."""
    column = reading.column or "text"
    splits = {"train": train, "test": test}
    if test is None:
        seed = 2357 if reading.seed is None else reading.seed
        try:
            splits = train.train_test_split(test_size=test_size, seed=seed, shuffle=True)
        except ValueError:  # a split would be empty
            rows = "1 row" if len(train) == 1 else f"{len(train):,} rows"
            raise RequestError(
                f"{title(source)} has {rows}, too few to keep {100 * test_size:g}% of them for the test split: "
                f"add rows, or pass a folder with train and test files"
            ) from None
        source |= {"test_size": test_size, "seed": seed}
    return Rows({name: splits[name] for name in SPLITS}, column, source | {"column": column}, reading.column_flag)
