"""Find and check the sentence pairs of a recipe."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy
from numpy.typing import NDArray

from golu_core.training import Fingerprint, RequestError
from golu_core.training.storage import (
    dry_run_folder,
    file_digest,
    file_size,
    only_writer,
    regular_json,
    remove_left_lock,
    whole_files_fingerprint,
)

from .config import TranslationConfig
from .number_words import number_words
from .pairs_folder import FORMAT, META_FILE, SUBWORDS_FILE, Cutting, prepare_pairs
from .parallel_text import SPLITS, Languages, text_lines
from .scores import bleu_of
from .subwords import Codec, Subwords
from .vocabulary import END

_NUMBERS = "numbers-en-de"

Lengths = NDArray[numpy.int64]


class Side:
    """One language of a split: memory-mapped sentences of subwords, each with its end-of-sentence symbol.

    Args:
        path: The file that `golu-translate prepare` wrote.
        vocabulary: The model's vocabulary size.

    Raises:
        RequestError: The file is missing or malformed.
    """

    def __init__(self, path: Path, vocabulary: int) -> None:
        self.path = path
        if not path.exists():
            raise RequestError(f"there is no {path}: prepare the data again")
        if file_size(path) == 0 or file_size(path) % 2:
            raise RequestError(f"{path} is not a file of subwords: prepare the data again")
        self.subwords: NDArray[numpy.uint16] = numpy.memmap(path, dtype=numpy.uint16, mode="r")
        if int(self.subwords.max()) >= vocabulary or self.subwords[-1] != END:
            raise RequestError(f"{path} is damaged, or --model.vocabulary {vocabulary:,} is too small for it")
        self._ends = numpy.flatnonzero(self.subwords == END) + 1

    @cached_property
    def lengths(self) -> Lengths:
        """The number of subwords of each sentence, including the end-of-sentence symbol."""
        return numpy.diff(self._ends, prepend=0)

    def __len__(self) -> int:
        return len(self._ends)

    def sentence(self, number: int) -> NDArray[numpy.uint16]:
        """Return a sentence's subwords, including the end-of-sentence symbol."""
        end = int(self._ends[number])
        return self.subwords[end - int(self.lengths[number]) : end]


class Split(NamedTuple):
    """Both languages of a split, sentence by sentence."""

    source: Side
    target: Side


class References(NamedTuple):
    """The reference translations of a split.

    Attributes:
        sources, texts: Sources and references as plain text.
        words: The references, tokenized as in the recipe.
    """

    sources: Sequence[str]
    texts: Sequence[str]
    words: Sequence[str]


@dataclass(frozen=True)
class PairData:
    """The splits of a recipe.

    Attributes:
        name: The data set's name in results.
        languages: The source and target languages.
        train, valid, test: The pairs of each split; `test` is `valid` with `--holdout validation`.
        references: The reference translations of validation and test split.
        codec: The codec for text and subwords.
        meta: The contents of meta.json.
        facts: The fields for result.json.
        remarks: Differences from the published counts, as sentences.
        fingerprint: Checksum of all pairs and the vocabulary.
    """

    name: str
    languages: Languages
    train: Split
    valid: Split
    test: Split
    references: dict[str, References]
    codec: Codec
    meta: dict[str, Any]
    facts: dict[str, Any]
    remarks: tuple[str, ...]
    fingerprint: Fingerprint


def load_pairs(config: TranslationConfig) -> PairData:
    """Load all splits; for the quick recipe, prepare the number pairs first if they are missing.

    Raises:
        RequestError: A file is missing or malformed or does not fit the model, or a package for the target language is
            not installed. The message tells the user what to do.
    """
    folder = _prepared_folder(config)
    meta = read_meta(folder)
    languages, cutting = Languages(*meta["languages"]), Cutting(**meta["cutting"])
    bleu_of(languages.target)  # fail now if the translations could not be scored at the end
    if meta["vocabulary"] > config.model.vocabulary:
        raise RequestError(
            f"{folder} has a vocabulary of {meta['vocabulary']:,} subwords, but the model only "
            f"{config.model.vocabulary:,}: pass --model.vocabulary {meta['vocabulary']}"
        )
    sides = (languages.source, languages.target)
    splits, references, paths = {}, {}, [folder / SUBWORDS_FILE]
    evaluated = "test" if config.holdout == "test" else "valid"
    for split in dict.fromkeys(("train", "valid", evaluated)):
        files = [folder / f"{split}.{side}.bin" for side in sides]
        paths += files
        if config.check_data:
            _check_checksums(files, meta["splits"][split]["sha256"])
        splits[split] = Split(*(Side(file, config.model.vocabulary) for file in files))
        counted = {len(side) for side in splits[split]} | {meta["splits"][split]["pairs"]}
        if len(counted) > 1:
            raise RequestError(
                f"{files[0]} and {files[1]} do not have the number of sentences in {META_FILE}: prepare the data again"
            )
        if split != "train":
            texts = [folder / f"{split}.{sides[0]}", *(folder / f"{split}.{sides[1]}{end}" for end in ("", ".words"))]
            paths += texts
            references[split] = _references(texts, len(splits[split].source))
    _check_lengths(splits, config.model.longest)
    facts, remarks = _compared(config, meta)
    splits["test"], references["test"], facts["test"] = splits[evaluated], references[evaluated], facts[evaluated]
    return PairData(
        name=config.data.name,
        languages=languages,
        **splits,
        references=references,
        codec=codec_of(folder / SUBWORDS_FILE, languages, cutting),
        meta=meta,
        facts=facts,
        remarks=remarks,
        fingerprint=whole_files_fingerprint("pairs", paths),
    )


def _check_lengths(splits: Mapping[str, Split], longest: int) -> None:
    """Raise RequestError if an evaluated sentence is too long for the model; only training pairs can be left out."""
    sides = [(int(side.lengths.max()), split, side) for split, both in splits.items() for side in both]
    needed, _, side = max(sides, key=lambda entry: entry[0])
    if needed <= longest:
        return
    cures = f"pass --model.longest {needed}"
    if all(length <= longest for length, split, _ in sides if split != "train"):
        cures += f", or prepare the data again with --max-subwords {longest - 1} --overwrite"
    number = int(side.lengths.argmax()) + 1
    raise RequestError(
        f"sentence {number:,} of {side.path} has {needed:,} subwords with its end, but the model accepts {longest:,}: "
        f"{cures}"
    )


def _prepared_folder(config: TranslationConfig) -> Path:
    place = config.data_dir / config.data.name
    if place.exists():
        remove_left_lock(place)
        return place
    if config.data.name != _NUMBERS:
        where = f" --data-dir {shlex.quote(str(config.data_dir))}" if config.data_dir != type(config).data_dir else ""
        raise RequestError(
            f"there is no data folder {place}: run golu-translate prepare wmt14, or with your file or folder, with "
            f"--name {shlex.quote(config.data.name)}{where} --vocabulary {config.model.vocabulary}"
        )
    place = (dry_run_folder() if config.dry_run else config.data_dir) / config.data.name
    with only_writer(place):
        if not place.exists():
            cutting = Cutting(vocabulary=config.model.vocabulary)
            prepare_pairs(number_words(), Languages("en", "de"), place, cutting, config.num_workers or 1)
    return place


def read_meta(folder: Path) -> dict[str, Any]:
    """Read the meta.json of prepared pairs; raise RequestError if it is missing, damaged, or not about pairs."""
    path = folder / META_FILE
    try:
        meta: dict[str, Any] = regular_json(path)
        if meta.get("format") != FORMAT:
            raise ValueError(f"its format is {meta.get('format')}, not {FORMAT}")
        Languages(*meta["languages"]), Cutting(**meta["cutting"]), int(meta["vocabulary"])
        for split in SPLITS:
            meta["splits"][split]["pairs"], meta["splits"][split]["sha256"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RequestError(f"{path} does not describe pairs of sentences ({error}): prepare the data again") from None
    return meta


def codec_of(path: Path, languages: Languages, cutting: Cutting) -> Codec:
    """Return the codec for two languages and a subword file; raise RequestError if the file cannot be read."""
    return Codec(Subwords(path), cutting.words(languages.source), cutting.words(languages.target))


def _check_checksums(files: Sequence[Path], expected: Sequence[str]) -> None:
    for file, digest in zip(files, expected, strict=True):
        if file.exists() and file_digest(file) != digest:
            raise RequestError(f"{file} does not have the checksum of its {META_FILE}: prepare the data again")


def _references(paths: Sequence[Path], count: int) -> References:
    columns = [list(text_lines(path)) if path.exists() else [] for path in paths]
    for path, lines in zip(paths, columns, strict=True):
        if len(lines) != count:
            raise RequestError(f"{path} has {len(lines):,} lines, not {count:,}: prepare the data again")
    return References(*columns)


def _compared(config: TranslationConfig, meta: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the fields for result.json, and the differences from the published pairs."""
    keys = ("pairs", "subwords", "left_out")
    facts: dict[str, Any] = {split: {key: meta["splits"][split][key] for key in keys} for split in SPLITS}
    published = {"train": config.data.train_pairs, "test": config.data.test_pairs}
    read = meta.get("read", {})
    remarks = tuple(
        f"{config.data.name} was made of {read[split]:,} {split} pairs, the recipe's own data have {expected:,}"
        for split, expected in published.items()
        if expected and read.get(split) != expected and split in read
    )
    facts |= {"published": published, "as_published": not remarks, "cutting": meta["cutting"]}
    return facts, remarks
