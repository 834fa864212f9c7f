"""Cuts parallel text into subwords: a folder that appears whole or not at all, continued where it was killed.

Three stages, each in blocks that a journal notes: words of all splits, subwords learned from the training words, and
numbers of all splits. No more than a block is in memory, but for the counts of different words while subwords are
learned.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import chain, count, islice
from pathlib import Path
from typing import Annotated, Any

import numpy

from golu_core.training import PositiveInt, RequestError
from golu_core.training.config import PositiveFloat, Range
from golu_core.training.messages import progress_bar
from golu_core.training.storage import (
    TOKENS_MARKER,
    already_prepared,
    begin_partial,
    discard,
    file_digest,
    is_ours,
    partial_of,
    publish,
    regular_json,
    remove_file,
    truncate_file,
    write_atomically,
    write_json,
)

from .parallel_text import SPLITS, Languages, ParallelText
from .subwords import Numbers, Subwords, Words, learn_subwords
from .vocabulary import END

META_FILE = TOKENS_MARKER
SUBWORDS_FILE = "subwords.json"
FORMAT = "golu-pairs/1"
_JOURNAL = "journal.json"
_PAIRS_AT_ONCE = 20_000
_LINES_OF_A_TASK = 1_000
_HELD_OUT = 100
"""One pair of so many is for validation, and another for the test, where there are no such splits."""


@dataclass(frozen=True)
class Cutting:
    """How text becomes subwords, and which training pairs are kept.

    Attributes:
        vocabulary: Subwords of both languages together, with the four symbols.
        moses: Cut text into words by Moses' rules; otherwise white space parts them.
        normalize: Normalize punctuation first (Moses).
        aggressive_dashes: Set dashes inside words apart (Moses' `-a`).
        most_subwords: Leave out training pairs with a longer side.
        most_ratio: Leave out training pairs of which one side has more than so many times the other's subwords.
    """

    vocabulary: Annotated[int, Range(ge=64, le=1 << 16)] = 32_768
    moses: bool = True
    normalize: bool = False
    aggressive_dashes: bool = False
    most_subwords: PositiveInt = 250
    most_ratio: PositiveFloat | None = None

    def words(self, language: str) -> Words:
        """How a language's text is cut."""
        return Words(language, self.moses, self.normalize, self.aggressive_dashes)


@dataclass
class _SplitProgress:
    """What of a split has been written.

    Attributes:
        words: pairs cut into words.
        numbers: pairs cut into subwords, or left out.
        pairs: of these, kept.
        subwords: that both sides have, each sentence's end among them.
        left_out: pairs by reason.
        sizes: bytes of each file.
    """

    words: int = 0
    numbers: int = 0
    pairs: int = 0
    subwords: list[int] = field(default_factory=lambda: [0, 0])
    left_out: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)


@dataclass
class _Journal:
    """What the partial folder holds, and what for.

    Attributes:
        request: what is prepared.
        read: pairs of each split of the text that were cut into words.
        splits: of the folder.
    """

    request: dict[str, Any]
    read: dict[str, int] = field(default_factory=dict)
    splits: dict[str, _SplitProgress] = field(default_factory=lambda: {name: _SplitProgress() for name in SPLITS})


def prepare_pairs(
    text: ParallelText,
    languages: Languages,
    folder: Path,
    cutting: Cutting,
    workers: int,
    *,
    show_progress: bool = False,
) -> dict[str, Any]:
    """Writes a folder that a translator is trained on, unless it is there.

    Args:
        text: the pairs.
        languages: of both sides.
        folder: gets `meta.json`, `subwords.json`, for each split and language a file of subwords' numbers such as
            `train.en.bin` (uint16, each sentence with its end), and text and words of validation and test.
        cutting: how.
        workers: processes that cut text into words.
        show_progress: bars on standard error.

    Returns:
        The content of meta.json.

    Raises:
        RequestError: something else lies in the folder, the text is malformed, or a split keeps no pair; nothing is
            left in that case.
    """
    request = {
        "format": FORMAT,
        "source": dict(text.source),
        "languages": [languages.source, languages.target],
        "cutting": dataclasses.asdict(cutting),
    }
    if folder.exists():
        return already_prepared(folder, request)
    try:
        return _Preparation(text, languages, folder, cutting, request, show_progress).run(workers)
    except RequestError:  # a kill leaves what the same command continues; a refusal leaves nothing
        discard(partial_of(folder))
        raise


@dataclass
class _Preparation:
    """One preparation on its way."""

    text: ParallelText
    languages: Languages
    folder: Path
    cutting: Cutting
    request: dict[str, Any]
    show_progress: bool

    def run(self, workers: int) -> dict[str, Any]:
        """All stages, from where the journal says; gives the content of meta.json."""
        self.partial, self.journal = _begun(self.folder, self.request)
        with _pool(workers) as pool:
            for split in sorted(self.text.readers, key=lambda split: split == "train"):  # what is long comes last
                self._cut_into_words(split, pool)
        self._learn()
        self.subwords = Subwords(self.partial / SUBWORDS_FILE)
        for split in SPLITS:
            self._cut_into_subwords(split)
        meta = {
            **self.request,
            "vocabulary": self.subwords.size,
            "read": {split: self.journal.read.get(split, 0) for split in self.text.readers},
            "splits": {
                split: {
                    "pairs": done.pairs,
                    "subwords": done.subwords,
                    "left_out": done.left_out,
                    "sha256": [file_digest(self.partial / f"{split}.{side}.bin") for side in self._sides],
                }
                for split, done in self.journal.splits.items()
            },
        }
        write_json(self.partial / META_FILE, meta)
        for side in self._sides:
            remove_file(self.partial / f"train.{side}.words")
        remove_file(self.partial / _JOURNAL)
        publish(self.partial, self.folder)
        return meta

    @property
    def _sides(self) -> tuple[str, str]:
        return self.languages.source, self.languages.target

    # ------------------------------------------------------------------------------------------------------- words

    def _cut_into_words(self, split: str, pool: Executor | None) -> None:
        """Writes the words of a split of the text, and its lines where they are for validation or test."""
        read = self.journal.read.setdefault(split, 0)
        missing = [name for name in SPLITS if name not in self.text.readers] if split == "train" else []
        with progress_bar(f"{self.folder.name} {split}: words", self.text.counts[split], self.show_progress) as advance:
            pairs = islice(self.text.pairs(split), read, None)
            while block := list(islice(pairs, _PAIRS_AT_ONCE)):
                cut = [_in_words(self.cutting.words(side), [pair[n] for pair in block], pool)
                       for n, side in enumerate(self._sides)]  # fmt: skip
                if split != "train" and "" in (*cut[0], *cut[1]):
                    number = next(n for n, sides in enumerate(zip(*cut, strict=True)) if "" in sides)
                    place = self.journal.read[split] + number + 1
                    raise RequestError(
                        f"pair {place:,} of the {split} split has an empty side: mend it, or leave it out"
                    )
                parts: dict[str, list[int]] = {}
                for number, (pair, *sides) in enumerate(zip(block, *cut, strict=True)):
                    # a pair with an empty side is left out of training, and must not get into a split cut off from it
                    name = split if "" in sides else _split_of(pair[0], split, missing)
                    parts.setdefault(name, []).append(number)
                for name, numbers in parts.items():
                    for n, side in enumerate(self._sides):
                        if name != "train":
                            self._append(name, f"{name}.{side}", (" ".join(block[k][n].split()) for k in numbers))
                        self._append(name, f"{name}.{side}.words", (cut[n][k] for k in numbers))
                    self.journal.splits[name].words += len(numbers)
                self.journal.read[split] += len(block)
                self._note()
                advance(self.journal.read[split])

    def _append(self, split: str, name: str, lines: Iterator[str]) -> None:
        """Adds lines to a file, after what the journal knows of it."""
        content = "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")
        self._append_bytes(split, name, content)

    def _append_bytes(self, split: str, name: str, content: bytes) -> None:
        path, sizes = self.partial / name, self.journal.splits[split].sizes
        path.touch()
        truncate_file(path, sizes.get(name, 0))
        with path.open("ab") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        sizes[name] = sizes.get(name, 0) + len(content)

    def _note(self) -> None:
        write_json(self.partial / _JOURNAL, dataclasses.asdict(self.journal))

    # ---------------------------------------------------------------------------------------------------- subwords

    def _learn(self) -> None:
        path = self.partial / SUBWORDS_FILE
        if path.exists():
            return
        total = 4 * self.journal.splits["train"].words  # each line is read twice
        read = count()
        with progress_bar(f"{self.folder.name}: learning subwords", total, self.show_progress) as advance:

            def lines() -> Iterator[str]:
                words = chain.from_iterable(self._words("train", side) for side in self._sides)
                for line, number in zip(words, read, strict=False):
                    if number % 10_000 == 0:
                        advance(number)
                    yield line

            write_atomically(path, lambda partial: learn_subwords(lines, self.cutting.vocabulary, partial))

    def _words(self, split: str, side: str) -> Iterator[str]:
        path = self.partial / f"{split}.{side}.words"
        if path.exists():
            with path.open(encoding="utf-8", newline="\n") as file:
                for line in file:
                    yield line.rstrip("\n")

    # ----------------------------------------------------------------------------------------------------- numbers

    def _cut_into_subwords(self, split: str) -> None:
        done = self.journal.splits[split]
        lines = islice(zip(*(self._words(split, side) for side in self._sides), strict=True), done.numbers, None)
        with progress_bar(f"{self.folder.name} {split}: subwords", done.words, self.show_progress) as advance:
            while block := list(islice(lines, _PAIRS_AT_ONCE)):
                encoded = [self.subwords.encode([pair[n] for pair in block]) for n in range(2)]
                kept = []
                for number, sides in enumerate(zip(*encoded, strict=True)):
                    problem = self._problem(*sides) if split == "train" else None
                    if problem is None:
                        kept.append(number)
                    else:
                        done.left_out[problem] = done.left_out.get(problem, 0) + 1
                for n, side in enumerate(self._sides):
                    numbers = [part for k in kept for part in (encoded[n][k], _END)]
                    content = numpy.concatenate(numbers).tobytes() if numbers else b""
                    self._append_bytes(split, f"{split}.{side}.bin", content)
                    done.subwords[n] += len(content) // 2
                done.pairs += len(kept)
                done.numbers += len(block)
                self._note()
                advance(done.numbers)
        if not done.pairs:
            left_out = "".join(f"; {found:,} have {reason}" for reason, found in done.left_out.items())
            cure = (
                "" if split in self.text.readers else ": one in a hundred is kept for it, so give it files of its own"
            )
            raise RequestError(f"no pair is left for the {split} split of {self.folder.name}{left_out}{cure}")

    def _problem(self, source: Numbers, target: Numbers) -> str | None:
        """Why a training pair is left out."""
        shorter, longer = sorted((len(source), len(target)))
        if shorter == 0:
            return "an empty side"
        if longer > self.cutting.most_subwords:
            return f"a side with more than {self.cutting.most_subwords} subwords"
        if self.cutting.most_ratio is not None and longer > self.cutting.most_ratio * shorter:
            return f"one side more than {self.cutting.most_ratio} times as long as the other"
        return None


_END = numpy.array([END], dtype=numpy.uint16)


def _split_of(source: str, split: str, missing: Sequence[str]) -> str:
    """Where a pair goes: splits that the text has not are cut off by the source's checksum, so that none is in two."""
    if not missing:
        return split
    place = int.from_bytes(hashlib.blake2b(source.encode("utf-8", "replace"), digest_size=8).digest(), "big")
    return missing[place % _HELD_OUT] if place % _HELD_OUT < len(missing) else split


def _in_words(words: Words, lines: list[str], pool: Executor | None) -> list[str]:
    """Lines cut into words, by several processes if there are some."""
    if pool is None:
        return [words.cut(line) for line in lines]
    tasks = [lines[start : start + _LINES_OF_A_TASK] for start in range(0, len(lines), _LINES_OF_A_TASK)]
    return list(chain.from_iterable(pool.map(_cut_lines, [words] * len(tasks), tasks)))


def _cut_lines(words: Words, lines: list[str]) -> list[str]:
    ours = _known_words.setdefault(words, words)  # a pool's process builds Moses' rules once
    return [ours.cut(line) for line in lines]


_known_words: dict[Words, Words] = {}


@contextmanager
def _pool(workers: int) -> Iterator[Executor | None]:
    """Processes, or None where this one does the work alone."""
    made = nullcontext() if workers == 1 else ProcessPoolExecutor(workers, initializer=_outlive_signals)
    with made as pool:
        yield pool


def _outlive_signals() -> None:
    """Leaves an interruption to the process that waits for this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _begun(folder: Path, request: dict[str, Any]) -> tuple[Path, _Journal]:
    """The partial folder and journal of a preparation that was killed, or new ones."""
    partial = partial_of(folder)
    try:
        values = regular_json(partial / _JOURNAL)
        splits = {name: _SplitProgress(**progress) for name, progress in values["splits"].items()}
        journal = _Journal(values["request"], values["read"], splits)
        whole = all(
            (partial / name).stat().st_size >= size for done in splits.values() for name, size in done.sizes.items()
        )
        if journal.request == request and is_ours(partial) and whole:
            for done in splits.values():  # what was written after the journal's last note
                for name, size in done.sizes.items():
                    truncate_file(partial / name, size)
            return partial, journal
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return begin_partial(folder), _Journal(request)
