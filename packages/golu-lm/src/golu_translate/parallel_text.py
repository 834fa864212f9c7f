"""Sentence pairs: from the hub, from two files with one sentence per line, from TSV, and from TMX."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from golu_core.training import RequestError
from golu_core.training.data import load_dataset
from golu_core.training.storage import (
    file_digest,
    lines_of,
    not_there,
    opened,
    remark_on,
    uncompressed_name,
    visible_files,
)

from .tmx import TmxRemarks, tmx_pairs

Pair = tuple[str, str]

SPLITS = ("train", "valid", "test")
_SPLIT_NAMES = {
    "train": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    "test": "test",
}
_LANGUAGE = re.compile(r"[a-z]{2,3}")


@dataclass(frozen=True)
class Languages:
    """A source and a target language, ISO 639."""

    source: str
    target: str

    @classmethod
    def parsed(cls, text: str) -> Languages:
        """Parse languages such as `en-de`; raise RequestError for anything else."""
        source, dash, target = text.partition("-")
        if not dash or not all(_LANGUAGE.fullmatch(part) for part in (source, target)) or source == target:
            raise RequestError(f"--pair must be two languages, such as en-de, not {text!r}")
        return cls(source, target)

    def __str__(self) -> str:
        return f"{self.source}-{self.target}"


@dataclass(frozen=True)
class ParallelText:
    """Sentence pairs in splits.

    Attributes:
        source: Description of the source, for meta.json and for comparing two requests.
        readers: For each existing split, a function that reads its pairs from the beginning.
        counts: The number of pairs in each split.
        remarks: Notes on unused parts of the files, as sentences.
    """

    source: Mapping[str, Any]
    readers: Mapping[str, Callable[[], Iterator[Pair]]]
    counts: Mapping[str, int]
    remarks: tuple[str, ...] = ()

    def pairs(self, split: str) -> Iterator[Pair]:
        """Yield the pairs of a split; raise RequestError if a file cannot be read."""
        return self.readers[split]()


def listed(splits: Mapping[str, Sequence[Pair]], source: Mapping[str, Any]) -> ParallelText:
    """Return parallel text from pairs in memory."""
    counts = {split: len(pairs) for split, pairs in splits.items()}
    return ParallelText(source, {split: partial(iter, pairs) for split, pairs in splits.items()}, counts)


def wmt14(hub: str | None, revision: str | None, languages: Languages) -> ParallelText:
    """Return WMT14's training text, newstest2013, and newstest2014, from the hub's parquet files (`wmt/wmt14`).

    Args:
        hub: A different id on the hub, or a local copy.
        revision: Revision of the data set on the hub.
        languages: The source and target languages, one of which is English, unless the hub's copy has other pairs.

    Raises:
        RequestError: The data set cannot be loaded, or has a different format.
    """
    path = hub or "wmt/wmt14"
    other = languages.source if languages.target == "en" else languages.target
    loaded = load_dataset(path, name=None if Path(path).exists() else f"{other}-en", revision=revision)
    readers: dict[str, Callable[[], Iterator[Pair]]] = {}
    counts = {}
    for split, theirs in (("train", "train"), ("valid", "validation"), ("test", "test")):
        rows = loaded.get(theirs)
        if rows is None or "translation" not in rows.column_names:
            raise RequestError(f"{path} has no column 'translation' in a split {theirs!r}: it is not WMT's form")
        readers[split] = partial(_rows_of, rows, languages, path)
        counts[split] = len(rows)
    return ParallelText({"hub": path, "revision": revision}, readers, counts)


def _rows_of(rows: Any, languages: Languages, path: str, at_once: int = 1000) -> Iterator[Pair]:
    for start in range(0, len(rows), at_once):
        for number, row in enumerate(rows[start : start + at_once]["translation"], start):
            found = row.get(languages.source), row.get(languages.target)
            if not all(isinstance(side, str) for side in found):
                raise RequestError(f"row {number:,}, counted from 0, of {path} has no text in {languages}")
            yield found


def own_pairs(path: Path, languages: Languages) -> ParallelText:
    """Return the pairs of a TSV or TMX file, or of a folder with `train.en` and `train.de`, `train.tsv` or `train.tmx`.

    Raises:
        RequestError: A file is missing, damaged, or not UTF-8, or its two sides do not match.
    """
    if path.is_file():
        found: dict[str, tuple[Path, ...]] = {"train": (path,)}
    elif path.is_dir():
        found = _files_by_split(path, languages)
    else:
        raise not_there(path, "file or folder")
    readers: dict[str, Callable[[], Iterator[Pair]]] = {}
    counts: dict[str, int] = {}
    remarks = _unused(path, found)
    tmx: list[str] = []
    for split, files in found.items():
        if _is_tmx(files):
            noted = TmxRemarks(files[0])
            readers[split] = partial(tmx_pairs, files[0], languages.source, languages.target)
            counts[split] = sum(1 for _ in tmx_pairs(files[0], languages.source, languages.target, noted))
            tmx += noted.lines()
        else:
            readers[split] = partial(_side_by_side, *files) if len(files) == 2 else partial(_tsv, files[0])
            counts[split] = sum(1 for _ in readers[split]())
        if not counts[split]:
            raise RequestError(f"{files[0]} has no pair of {languages}")
    digests = {split: [file_digest(file) for file in files] for split, files in found.items()}
    source = {"path": str(path.resolve()), "sha256": digests}
    if tmx:  # version 0.2.0 read these files differently
        source["tmx"] = "without inline codes, first variant"
    return ParallelText(source, readers, counts, (*remarks, *tmx))


def _is_tmx(files: Sequence[Path]) -> bool:
    return uncompressed_name(files[0]).suffix.lower() == ".tmx"


def _unused(path: Path, found: Mapping[str, Sequence[Path]]) -> tuple[str, ...]:
    """List the files of a folder that are not read, as a sentence."""
    read = {file for files in found.values() for file in files}
    others = (file for file in visible_files(path) if file not in read) if path.is_dir() else ()
    return remark_on(others, path, "used")


def _files_by_split(folder: Path, languages: Languages) -> dict[str, tuple[Path, ...]]:
    """Return the one or two files of each split."""
    found: dict[str, dict[str, Path]] = {}
    for file in visible_files(folder):
        plain = uncompressed_name(file)
        split, kind = _SPLIT_NAMES.get(plain.stem.lower()), plain.suffix.lower().removeprefix(".")
        if split is None or kind not in (languages.source, languages.target, "tsv", "tmx"):
            continue
        other = found.setdefault(split, {}).setdefault(kind, file)
        if other != file:
            raise RequestError(f"{folder} has both {other.name} and {file.name}: move one of them away")
    if "train" not in found:
        raise RequestError(
            f"{folder} has no train.{languages.source} and train.{languages.target}, no train.tsv and no train.tmx"
        )
    chosen: dict[str, tuple[Path, ...]] = {}
    for split in (split for split in SPLITS if split in found):
        files = found[split]
        whole = [files[kind] for kind in ("tsv", "tmx") if kind in files]
        sides = [files[side] for side in (languages.source, languages.target) if side in files]
        if len(whole) + bool(sides) > 1:
            raise RequestError(f"{folder} has its {split} split more than once: {', '.join(map(str, files.values()))}")
        if len(sides) == 1:
            raise RequestError(f"{sides[0]} has no file of the other language beside it")
        chosen[split] = tuple(whole or sides)
    return chosen


def _side_by_side(source: Path, target: Path) -> Iterator[Pair]:
    lines = (text_lines(source), text_lines(target))
    missing = object()
    for number in range(1, 1 << 62):
        left, right = next(lines[0], missing), next(lines[1], missing)
        if isinstance(left, str) and isinstance(right, str):
            yield left, right
        elif left is missing and right is missing:
            return
        else:
            shorter, longer = (source, target) if left is missing else (target, source)
            more = 1 + sum(1 for _ in lines[0 if left is not missing else 1])
            raise RequestError(
                f"{shorter} has {number - 1:,} lines, and {longer} {number - 1 + more:,}: "
                f"each line must be the translation of the other file's same line"
            )


def _tsv(path: Path) -> Iterator[Pair]:
    for number, line in enumerate(text_lines(path), 1):
        columns = line.split("\t")
        if len(columns) != 2:
            raise RequestError(
                f"{path}, line {number:,}, has {len(columns) - 1:,} tabs: a line must be a sentence, one tab, "
                f"and its translation"
            )
        yield columns[0], columns[1]


def text_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file, compressed or not, without line ends; only a newline ends a line.

    Raises:
        RequestError: The file cannot be read, or a line is not text or too long for a sentence.
    """
    with opened(path) as file:
        yield from lines_of(file, path)
