"""Find a recipe's tokens, check them, and read windows from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from golu_core.training import Fingerprint, Purpose, RequestError, SampleKey
from golu_core.training.data import HOLDOUT_SHARE, generator
from golu_core.training.storage import (
    dry_run_folder,
    file_digest,
    file_size,
    only_writer,
    regular_json,
    remove_left_lock,
    whole_files_fingerprint,
)

from .config import Data, LmConfig
from .corpora import HUB_CORPORA, Reading, open_files, python_docs
from .own_files import OwnFiles, own_files, text_name
from .prepare import META_FILE, prepare
from .tokenizers import build_tokenizer

_TEST_FILES = ("test.bin", "val.bin", "validation.bin")  # ours, nanoGPT's, and the paper's for TinyStories
_CHECKED_AT_ONCE = 1 << 20
_BLOCKS_SAMPLED = 16
_FEWEST_FOR_WIDTH = 64


class Windows(NamedTuple):
    """The sequences of one process in one step.

    Attributes:
        tokens: (N, context + 1) int64; the last one is only a target.
        predicted: (N,) int64, the number of tokens to predict in each sequence; 0 if it only fills the batch.
    """

    tokens: Tensor
    predicted: Tensor


class TokenFile:
    """The memory-mapped tokens of a split.

    Attributes:
        path: The file.
        tokens: One-dimensional array, uint8, uint16, or uint32.
    """

    def __init__(self, path: Path, dtype: str) -> None:
        self.path = path
        item = numpy.dtype(dtype).itemsize
        size = file_size(path)
        if size % item:
            raise RequestError(
                f"{path} has {size:,} bytes, which is not a multiple of {item}: it is not a file of {dtype} tokens"
            )
        if size == 0:
            raise RequestError(f"{path} is empty")
        self.tokens: NDArray[Any] = numpy.memmap(path, dtype=dtype, mode="r")

    def __len__(self) -> int:
        return len(self.tokens)

    def divided(self) -> tuple[TokenFile, TokenFile]:
        """Return the split in two parts: what is trained on with `--holdout validation`, and the last 10%."""
        first, second = copy(self), copy(self)
        end = len(self) - round(HOLDOUT_SHARE * len(self))
        first.tokens, second.tokens = self.tokens[:end], self.tokens[end:]
        return first, second

    def check(self, vocabulary: int, context: int) -> None:
        """Raise RequestError if the split is too short, or a token in its first or a sampled block is out of range."""
        if len(self) <= context:
            raise RequestError(
                f"{self.path} has {len(self):,} tokens: a context of {context:,} needs at least {context + 1:,}"
            )
        last = max(0, len(self) - _CHECKED_AT_ONCE)
        for start in sorted({int(last * part / _BLOCKS_SAMPLED) for part in range(_BLOCKS_SAMPLED + 1)}):
            self._check_block(start, vocabulary)

    def check_width(self) -> None:
        """Raise RequestError if the file seems to have been written with a wider type."""
        block = self.tokens[: _CHECKED_AT_ONCE // 2 * 2]
        wider = {"uint8": "uint16", "uint16": "uint32"}.get(str(block.dtype))
        if wider is not None and len(block) >= _FEWEST_FOR_WIDTH and not block[1::2].any() and block[::2].any():
            seen = "" if len(block) >= len(self) - 1 else f"the first {len(block):,} of "
            raise RequestError(
                f"every second token of {seen}{self.path} is 0, as if they were {wider}: pass --data.dtype {wider}"
            )

    def check_all(self, vocabulary: int) -> None:
        """Raise RequestError if any token is out of range."""
        for start in range(0, len(self), _CHECKED_AT_ONCE):
            self._check_block(start, vocabulary)

    def _check_block(self, start: int, vocabulary: int) -> None:
        block = self.tokens[start : start + _CHECKED_AT_ONCE]
        largest = int(block.max())
        if largest >= vocabulary:
            place = start + int(block.argmax())
            raise RequestError(
                f"{self.path} has token {largest:,} at index {place:,}, but the model's vocabulary has {vocabulary:,}: "
                f"the file is of another type or tokenizer, or --model.vocabulary is too small"
            )


@dataclass(frozen=True)
class LmData:
    """The two splits of a recipe.

    Attributes:
        name: The data set's name in results.
        test_bytes: Size of the test split's text in bytes, if known.
        facts: The fields for result.json: counts, published counts, and the tokenizer.
        remarks: Differences from the published counts, and data that were left out, as sentences.
        fingerprint: Checksum of all tokens.
    """

    name: str
    train: TokenFile
    test: TokenFile
    test_bytes: int | None
    facts: dict[str, Any]
    remarks: tuple[str, ...]
    fingerprint: Fingerprint


def load_data(config: LmConfig) -> LmData:
    """Find both splits; tokenize the user's text file or `pydocs` first if this has not been done.

    Raises:
        RequestError: A file is missing or malformed, or does not fit the model; the message tells the user what to do.
    """
    files = None if config.data.text is None else own_files(config.data.text)
    folder, name = _prepared_folder(config, files)
    missing = (
        f"run golu-lm prepare (for {' or '.join(HUB_CORPORA)}, or a file of yours with --name {name}), "
        f"put nanoGPT's train.bin and val.bin there, or pass --data.text FILE"
    )
    if not folder.is_dir():
        raise RequestError(f"there is no data folder {folder}: {missing}")
    if not (folder / "train.bin").exists():
        raise RequestError(f"{folder} has no train.bin: {missing}")
    test_path = next((folder / file for file in _TEST_FILES if (folder / file).exists()), None)
    if test_path is None:
        raise RequestError(f"{folder} has none of {', '.join(_TEST_FILES)}: {missing}")
    meta = _read_meta(folder, config)
    if meta and config.data.dtype not in (None, meta["dtype"]):
        raise RequestError(f"{folder / META_FILE} declares tokens of type {meta['dtype']}: leave out --data.dtype")
    dtype = meta.get("dtype") or config.data.dtype or "uint16"  # nanoGPT's default
    splits = {"train": TokenFile(folder / "train.bin", dtype)}
    if config.holdout == "test":
        splits["test"] = TokenFile(test_path, dtype)
    for split, tokens in splits.items():
        expected = meta["splits"][split]["tokens"] if meta else len(tokens)
        if len(tokens) != expected:
            raise RequestError(
                f"{tokens.path} has {len(tokens):,} tokens, but {folder / META_FILE} lists {expected:,}: "
                f"one of them is damaged or belongs to other data; prepare the data again"
            )
        tokens.check(config.model.vocabulary, config.model.context)
        if not meta:
            tokens.check_width()
            tokens.check_all(config.model.vocabulary)  # other programs wrote the tokens, so they are unchecked
        if config.check_data:
            _check_everything(tokens, meta.get("splits", {}).get(split), config.model.vocabulary)
    return _described(config, name, splits, meta, () if files is None else files.remarks)


def _prepared_folder(config: LmConfig, files: OwnFiles | None) -> tuple[Path, str]:
    """Return the folder with the tokens and the data set's name; tokenize data that need no download."""
    data = config.data
    if files is None and data.name != "pydocs":
        return config.data_dir / data.name, data.name
    tokenizer = build_tokenizer(data.tokenizer, data.vocab_file)
    if tokenizer.size > config.model.vocabulary:
        raise RequestError(
            f"the tokenizer {tokenizer.name} has {tokenizer.size:,} tokens, but the model's vocabulary only "
            f"{config.model.vocabulary:,}: set --model.vocabulary"
        )
    name = data.name if files is None else text_name(files.path)
    folder = f"{name}-{tokenizer.name}" if files is None else f"{name}-{_text_name(data, files)}-{tokenizer.name}"
    place = config.data_dir / folder
    if place.exists():
        remove_left_lock(place)
        return place, name
    if config.dry_run:
        place = dry_run_folder() / folder
    with only_writer(place):
        if not place.exists():
            corpus = python_docs() if files is None else open_files(files, _reading(data, files))
            prepare(corpus, place, tokenizer, config.num_workers or 1, fewest_tokens=config.model.context + 1)
    return place, name


def _reading(data: Data, files: OwnFiles) -> Reading:
    return (
        Reading(split_on_endoftext=data.split_on_endoftext)
        if files.table is None
        else Reading(column=data.column, column_flag="--data.column")
    )


def _text_name(data: Data, files: OwnFiles) -> str:
    """Return a name that identifies the text files and the reading options, which together determine the tokens."""
    how = f"-{data.column}" if files.table else ("" if data.split_on_endoftext else "-joined")
    return files.digest()[:12] + "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in how)


def _read_meta(folder: Path, config: LmConfig) -> dict[str, Any]:
    """Read meta.json, or return an empty dictionary without one, as with nanoGPT; its meta.pkl is never opened."""
    path = folder / META_FILE
    if not path.exists():
        return {}
    try:
        meta: dict[str, Any] = regular_json(path)
        tokenizer, vocabulary = meta["tokenizer"], int(meta["vocabulary"])
        numpy.dtype(meta["dtype"]), [int(meta["splits"][split]["tokens"]) for split in ("train", "test")]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RequestError(f"{path} is damaged ({type(error).__name__}: {error}): prepare the data again") from None
    if tokenizer != config.data.tokenizer:
        raise RequestError(
            f"{folder} was tokenized by {tokenizer}, but {config.data.tokenizer} is asked for: "
            f"pass --data.tokenizer {tokenizer}, or prepare the data again"
        )
    if vocabulary > config.model.vocabulary:
        raise RequestError(
            f"{folder} has a vocabulary of {vocabulary:,} tokens, but the model's only {config.model.vocabulary:,}: "
            f"set --model.vocabulary"
        )
    return meta


def _check_everything(tokens: TokenFile, facts: dict[str, Any] | None, vocabulary: int) -> None:
    tokens.check_all(vocabulary)
    if facts is not None and file_digest(tokens.path) != facts["sha256"]:
        raise RequestError(f"{tokens.path} does not have the checksum of its {META_FILE}: prepare the data again")


def _described(
    config: LmConfig, name: str, splits: Mapping[str, TokenFile], meta: dict[str, Any], left_out: tuple[str, ...]
) -> LmData:
    facts: dict[str, Any] = {split: {"tokens": len(tokens)} for split, tokens in splits.items()}
    if meta:
        facts = {split: {k: v for k, v in meta["splits"][split].items() if k != "sha256"} for split in facts}
    published = {"train": config.data.train_documents, "test": config.data.test_documents}
    remarks: list[str] = []
    for split, expected in published.items():
        found = facts.get(split, {}).get("documents")
        if expected and config.data.text is None and found not in (None, expected):
            remarks.append(f"{name} has {found:,} {split} documents, the recipe's own data have {expected:,}")
    as_published = not remarks and config.data.text is None
    facts |= {"published": published, "as_published": as_published, "tokenizer": config.data.tokenizer}
    fingerprint = whole_files_fingerprint("tokens", [tokens.path for tokens in splits.values()])
    if config.holdout == "validation":
        train, test = splits["train"].divided()
        for part in (train, test):
            part.check(config.model.vocabulary, config.model.context)
        facts |= {"train": {"tokens": len(train)}, "test": {"tokens": len(test)}}
        return LmData(name, train, test, None, facts, (*remarks, *left_out), fingerprint)
    test_bytes = facts["test"].get("text_bytes")
    if test_bytes is None:
        remarks.append(f"{name} has no {META_FILE} with the size of its text, so bits_per_byte is not computed")
    return LmData(name, splits["train"], splits["test"], test_bytes, facts, (*remarks, *left_out), fingerprint)


@dataclass(frozen=True)
class WindowOrder:
    """Random windows of the training split; their positions depend only on the seed, the step, and the batch index.

    Attributes:
        tokens: Length of the split.
        context: The model's context length.
        batch_size: Sequences per step, over all processes.
        seed: The run's seed.
        steps_per_epoch: Steps between two evaluations; there are no passes over the data.
    """

    tokens: int
    context: int
    batch_size: int
    seed: int
    steps_per_epoch: int

    def global_batches(self, epoch: int, first_step: int) -> Iterator[list[int]]:
        """Yield the first token of each window, for each step of an epoch, starting at a given step."""
        for step in range(first_step, self.steps_per_epoch):
            random = generator(self.seed, Purpose.WINDOWS, epoch * self.steps_per_epoch + step)
            yield torch.randint(self.tokens - self.context, (self.batch_size,), generator=random).tolist()


class TokenWindows:
    """Windows of a split, as a data set indexed by position in the split, or by index in a list of positions."""

    in_memory = True

    def __init__(self, split: TokenFile, context: int, places: Tensor | None = None) -> None:
        self.tokens = split.tokens
        self.context = context
        self.places = places

    def __len__(self) -> int:
        return len(self.tokens) - self.context if self.places is None else len(self.places)

    def __getitems__(self, keys: list[SampleKey]) -> Windows:
        samples = [key.sample for key in keys]
        places = samples if self.places is None else self.places[samples].tolist()
        windows = torch.zeros(len(keys), self.context + 1, dtype=torch.int64)
        predicted = torch.zeros(len(keys), dtype=torch.int64)
        for row, (key, place) in enumerate(zip(keys, places, strict=True)):
            window = self.tokens[place : place + self.context + 1]
            windows[row, : len(window)] = torch.from_numpy(window.astype(numpy.int64))
            predicted[row] = 0 if key.position < 0 else len(window) - 1
        return Windows(windows, predicted)


def whole_split(split: TokenFile, context: int) -> TokenWindows:
    """Return consecutive windows, in which each token but the first is predicted once."""
    return TokenWindows(split, context, torch.arange(0, len(split) - 1, context))


def random_windows(split: TokenFile, context: int, count: int, seed: int, step: int) -> TokenWindows:
    """Return the windows of one evaluation, which depend only on (seed, step)."""
    random = generator(seed, Purpose.TEST_WINDOWS, step)
    return TokenWindows(split, context, torch.randint(len(split) - context, (count,), generator=random))
