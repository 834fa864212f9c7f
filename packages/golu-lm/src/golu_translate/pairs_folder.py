"""Convert parallel text to subwords in a folder that appears complete or not at all, and resume if killed.

    begin      create a hidden partial folder with a journal, or reopen those of a killed preparation
    split      split all text into words, in blocks that the journal records
    learn      learn the subwords from the counts of the training words
    encode     encode all splits as subwords, again in blocks that the journal records
    publish    write the description with the checksums, and rename the partial folder to its final name

At most one block is in memory, except for the word counts during learning.
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
"""Pairs per journaled block: a killed preparation repeats at most this many."""
_LINES_OF_A_TASK = 1_000
"""Lines that a worker process gets at once: few enough to share the work evenly."""
_HELD_OUT = 100
"""One pair in 100 becomes a validation pair, and one in 100 a test pair, if these splits are missing."""


@dataclass(frozen=True)
class Cutting:
    """The conversion of text to subwords, and the filter for training pairs.

    Attributes:
        vocabulary: Vocabulary size of both languages together, including the four symbols.
        moses: Split text into words by Moses' rules; otherwise, at white space.
        normalize: Normalize punctuation first (Moses).
        aggressive_dashes: Split words at dashes (Moses' `-a`).
        most_subwords: Leave out training pairs with a longer side.
        most_ratio: Leave out training pairs if the ratio of their lengths in subwords is larger.
    """

    vocabulary: Annotated[int, Range(ge=64, le=1 << 16)] = 32_768
    moses: bool = True
    normalize: bool = False
    aggressive_dashes: bool = False
    most_subwords: PositiveInt = 250
    most_ratio: PositiveFloat | None = None

    def words(self, language: str) -> Words:
        """Return the tokenization of a language's text."""
        return Words(language, self.moses, self.normalize, self.aggressive_dashes)


@dataclass
class _SplitProgress:
    """The progress of a split.

    Attributes:
        words: Number of pairs that are split into words.
        numbers: Number of pairs that are encoded as subwords or left out.
        pairs: Number of pairs that were kept.
        subwords: Number of subwords on both sides, including the end-of-sentence symbols.
        left_out: Number of pairs that were left out, by reason.
        sizes: The size of each file in bytes.
    """

    words: int = 0
    numbers: int = 0
    pairs: int = 0
    subwords: list[int] = field(default_factory=lambda: [0, 0])
    left_out: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)


@dataclass
class _Journal:
    """The contents of the partial folder, and the request it belongs to.

    Attributes:
        request: The request.
        read: The number of pairs from each split of the text that are split into words.
        splits: The progress of each split of the folder.
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
    """Write the folder that a translator is trained on, unless it exists.

    Args:
        text: The sentence pairs.
        languages: The source and target languages.
        folder: The folder to write: `meta.json`, `subwords.json`, a file of subword indices for each split and
            language, such as `train.en.bin` (uint16, each sentence with its end-of-sentence symbol), and the text and
            words of the validation and test splits.
        cutting: The settings of the conversion.
        workers: Number of processes that split text into words.
        show_progress: Show progress bars on standard error.

    Returns:
        The contents of meta.json.

    Raises:
        RequestError: The folder has other contents, the text is malformed, or no pair of a split remains; nothing is
            written in this case.
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
    except RequestError:  # the same command can resume a killed preparation; a refused request leaves nothing
        discard(partial_of(folder))
        raise


@dataclass
class _Preparation:
    """One preparation in progress."""

    text: ParallelText
    languages: Languages
    folder: Path
    cutting: Cutting
    request: dict[str, Any]
    show_progress: bool

    def run(self, workers: int) -> dict[str, Any]:
        """Run all stages, starting at the journal's last entry; return the contents of meta.json."""
        self.partial, self.journal = _begun(self.folder, self.request)
        with _pool(workers) as pool:
            for split in sorted(self.text.readers, key=lambda split: split == "train"):  # the longest comes last
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
        """Split the pairs of one split into words, and for validation and test also write the original lines."""
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
                    # training leaves out pairs with an empty side, and they must not get into a split taken from it
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
        """Append lines to a file, at the end of what the journal has recorded."""
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
                "" if split in self.text.readers else ": one in a hundred is kept for it, so add separate files for it"
            )
            raise RequestError(f"no pair is left for the {split} split of {self.folder.name}{left_out}{cure}")

    def _problem(self, source: Numbers, target: Numbers) -> str | None:
        """Return the reason to leave out a training pair, if any."""
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
    """Return the split of a pair: a missing split is taken from training by the source's checksum, without overlap."""
    if not missing:
        return split
    place = int.from_bytes(hashlib.blake2b(source.encode("utf-8", "replace"), digest_size=8).digest(), "big")
    return missing[place % _HELD_OUT] if place % _HELD_OUT < len(missing) else split


def _in_words(words: Words, lines: list[str], pool: Executor | None) -> list[str]:
    """Split lines into words, in several processes if there is a pool."""
    if pool is None:
        return [words.cut(line) for line in lines]
    tasks = [lines[start : start + _LINES_OF_A_TASK] for start in range(0, len(lines), _LINES_OF_A_TASK)]
    return list(chain.from_iterable(pool.map(_cut_lines, [words] * len(tasks), tasks)))


def _cut_lines(words: Words, lines: list[str]) -> list[str]:
    ours = _known_words.setdefault(words, words)  # each process of a pool builds Moses' rules once
    return [ours.cut(line) for line in lines]


_known_words: dict[Words, Words] = {}


@contextmanager
def _pool(workers: int) -> Iterator[Executor | None]:
    """Open a pool of processes, or return None to work in this process."""
    made = nullcontext() if workers == 1 else ProcessPoolExecutor(workers, initializer=_outlive_signals)
    with made as pool:
        yield pool


def _outlive_signals() -> None:
    """Ignore interruptions; the parent process handles them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _begun(folder: Path, request: dict[str, Any]) -> tuple[Path, _Journal]:
    """Return the partial folder and journal of a preparation that was killed, or create both."""
    partial = partial_of(folder)
    try:
        values = regular_json(partial / _JOURNAL)
        splits = {name: _SplitProgress(**progress) for name, progress in values["splits"].items()}
        journal = _Journal(values["request"], values["read"], splits)
        whole = all(
            (partial / name).stat().st_size >= size for done in splits.values() for name, size in done.sizes.items()
        )
        if journal.request == request and is_ours(partial) and whole:
            for done in splits.values():  # remove what was written after the journal's last entry
                for name, size in done.sizes.items():
                    truncate_file(partial / name, size)
            return partial, journal
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return begin_partial(folder), _Journal(request)
