"""The user's own text: a file or a folder of files, plain text or tables, and the choice of the test split."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from golu_core.training import RequestError
from golu_core.training.messages import printable
from golu_core.training.storage import file_digest, left_out, not_there, remark_on, uncompressed_name, visible_files

TABLES = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv", ".tsv": "csv"}
"""Suffixes of files with a text column, and the loader in `datasets` that reads each."""
PLAIN = (".txt", ".text", ".md")
"""Suffixes of plain text files in a folder; a file that you name yourself may have any suffix."""
TEST_SPLITS = ("val", "valid", "validation", "test")
"""Names of test splits; the first one that exists is used."""
_SPLIT_NAME = re.compile(rf"(train|{'|'.join(TEST_SPLITS)})([-_.]\d.*)?")


@dataclass(frozen=True)
class OwnFiles:
    """The files of a corpus, all in one format.

    Attributes:
        path: The requested path.
        train, test: The files, sorted by name; `test` is empty if no file is named as the test split.
        table: The loader in `datasets` for the files; None for plain text.
        separator: The column separator, if it is not the loader's default.
        remarks: Notes on unused files in the folder, as sentences.
    """

    path: Path
    train: tuple[Path, ...]
    test: tuple[Path, ...]
    table: str | None
    separator: str | None
    remarks: tuple[str, ...] = ()

    @property
    def source(self) -> dict[str, object]:
        """Return a description for meta.json that identifies the corpus."""
        paths = (*self.train, *self.test)
        kind = "folder" if self.path.is_dir() else "file"
        bytes_of_all = sum(path.stat().st_size for path in paths)
        source = {kind: str(self.path.resolve()), "bytes": bytes_of_all, "sha256": self.digest()}
        return source | ({"files": len(self.train), "test_files": len(self.test)} if kind == "folder" else {})

    def digest(self) -> str:
        """Return the SHA-256 of the file, or of a folder's checksums; raise RequestError if a file cannot be read."""
        try:
            digests = [[file_digest(path) for path in paths] for paths in (self.train, self.test)]
        except OSError as error:
            raise RequestError(f"the text file {error.filename} cannot be read: {error.strerror}") from None
        if self.path.is_file():
            return digests[0][0]
        return hashlib.sha256("/".join(" ".join(part) for part in digests).encode()).hexdigest()


def own_files(path: Path) -> OwnFiles:
    """Return the files of a text file or folder.

    Raises:
        RequestError: The path does not exist, or a folder has no text, several formats, a file twice, or only some
            files that are named after a split.
    """
    if path.is_file():
        return _of_one_format(path, [path], [])
    if not path.is_dir():
        raise not_there(path, "text file or folder")
    if (path / "dataset_dict.json").exists():
        raise RequestError(f"{path} was saved by datasets: pass it by golu-lm prepare NAME --hub {path}")
    files = visible_files(path)
    texts = [file for file in files if _suffix(file) in (*TABLES, *PLAIN)]
    if not texts:
        known = ", ".join((*PLAIN, *TABLES))
        there = left_out(files, "read as text") if files else "no file at all"
        raise RequestError(f"{printable(path)} has no file that ends in {known}; it has {there}")
    known_texts = set(texts)
    for file in texts:
        plain = uncompressed_name(file)
        if plain != file and plain in known_texts:
            raise RequestError(f"{path} has {file.name} beside {plain.name}: move one of them away")
    others = [file for file in files if file not in known_texts]
    remarks = list(remark_on(others, path, "read as text"))
    by_split: dict[str | None, list[Path]] = {}
    for file in texts:
        by_split.setdefault(_split_of(file.relative_to(path)), []).append(file)
    if set(by_split) == {None}:
        return _of_one_format(path, texts, [], *remarks)
    if None in by_split:
        unnamed, named = by_split.pop(None)[0], next(iter(by_split.values()))[0]
        raise RequestError(f"{named} is named after a split, and {unnamed} is not: name all files so, or none")
    tests = [by_split[name] for name in TEST_SPLITS if name in by_split]
    if "train" not in by_split:
        raise RequestError(f"{path} has a test split, such as {tests[0][0]}, and no file that is named train")
    remarks += [f"the test split is {tests[0][0]}; {unused[0]} is not used" for unused in tests[1:]]
    return _of_one_format(path, by_split["train"], tests[0] if tests else [], *remarks)


def _of_one_format(path: Path, train: list[Path], test: list[Path], *remarks: str) -> OwnFiles:
    suffixes = {_suffix(file): file for file in (*train, *test)}
    kinds = {(TABLES.get(suffix), "\t" if suffix == ".tsv" else None): file for suffix, file in suffixes.items()}
    if len(kinds) > 1:
        first, second = list(kinds.values())[:2]
        raise RequestError(
            f"{path} has files of several formats, {first} and {second}: put each format into its own folder"
        )
    ((table, separator),) = kinds
    return OwnFiles(path, tuple(train), tuple(test), table, separator, remarks)


def text_name(path: Path) -> str:
    """Return the name of a text file without its extensions, or of a folder."""
    return path.resolve().name if path.is_dir() else uncompressed_name(path).stem


def _suffix(path: Path) -> str:
    return uncompressed_name(path).suffix.lower()


def _split_of(relative: Path) -> str | None:
    """Return the split that a file or its folder is named after: `train.txt`, `test/x.txt`, `train-01-of-04.jsonl`."""
    names = (*relative.parts[:-1], uncompressed_name(relative).stem)
    found = (_SPLIT_NAME.fullmatch(name.lower()) for name in names)
    return next((match[1] for match in found if match), None)
