"""Group pairs of similar length into bundles, and assign bundles to steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from golu_core.training import Purpose, RequestError, SampleKey
from golu_core.training.data import derive_seed, generator

from .data import Split
from .vocabulary import END, PAD

_ROWS_MULTIPLE = 8  # fairseq's --required-batch-size-multiple


def bundles_of(split: Split, most_subwords: int, seed: int | None) -> list[NDArray[numpy.int64]]:
    """Group the pairs of a split into bundles of similar length, as fairseq's `batch_by_size` does.

    Pairs are sorted by the length of the source, then by that of the target; ties are in random order. A bundle adds
    pairs as long as its longest side times its number of rows is at most `most_subwords`; with more than eight rows,
    the number of rows is a multiple of eight.

    Args:
        split: The split to group.
        most_subwords: Maximum number of subwords per bundle on either side, including padding.
        seed: Seed for the order of ties; None keeps the order of the file.

    Returns:
        The indices of the pairs in each bundle.

    Raises:
        RequestError: A single pair has more subwords.
    """
    source, target = split.source.lengths, split.target.lengths
    order = numpy.arange(len(source))
    if seed is not None:
        order = numpy.random.default_rng(derive_seed(seed, Purpose.BUNDLES)).permutation(order)
    order = order[numpy.lexsort((target[order], source[order]))]
    longest = numpy.maximum(source, target)[order]
    if int(longest.max()) > most_subwords:
        number = int(order[longest.argmax()])
        raise RequestError(
            f"pair {number + 1:,} of {split.source.path.name} has {int(longest.max()):,} subwords, and a bundle holds "
            f"{most_subwords:,}: set --data.bundle-tokens"
        )
    bundles, start, widest = [], 0, 0
    for place, length in enumerate(longest.tolist()):
        grown = max(widest, length)
        if grown * (place + 1 - start) > most_subwords:
            rows = place - start
            rows = max(rows // _ROWS_MULTIPLE * _ROWS_MULTIPLE, rows % _ROWS_MULTIPLE)
            bundles.append(order[start : start + rows])
            start += rows
            grown = int(longest[start : place + 1].max())
        widest = grown
    bundles.append(order[start:])
    return bundles


class PairBatch(NamedTuple):
    """The bundles that one process handles in one micro-batch of a step.

    Attributes:
        source: (N, S) int64, each sentence with its end-of-sentence symbol, then padding.
        previous: (N, T) int64, the end-of-sentence symbol and the target without its own, then padding.
        targets: (M,) int64, all subwords to predict, without padding.
        places: (M,) int64, the position in N * T at which each target is predicted.
        scale: Factor for the sum of the losses, chosen so that the mean over all micro-batches and processes is the
            mean over the subwords of the step.
    """

    source: Tensor
    previous: Tensor
    targets: Tensor
    places: Tensor
    scale: float

    def to(self, device: torch.device) -> PairBatch:
        """Move the batch to a device."""
        source, previous, targets, places = (part.to(device, non_blocking=True) for part in self[:4])
        return PairBatch(source, previous, targets, places, self.scale)


@dataclass(frozen=True)
class BundleOrder:
    """Bundles in random order, pass after pass, split into steps.

    Attributes:
        bundles: Number of bundles.
        batch_size: Bundles per step, over all processes.
        seed: The run's seed.
        steps_per_epoch: Steps between two evaluations, independent of the passes over the data.
    """

    bundles: int
    batch_size: int
    seed: int
    steps_per_epoch: int

    def __post_init__(self) -> None:
        if self.batch_size > self.bundles:
            raise RequestError(
                f"a batch of {self.batch_size} bundles is larger than the training set of {self.bundles}: "
                f"use a smaller --batch-size or --data.bundle-tokens"
            )

    @property
    def steps_per_pass(self) -> int:
        """Steps per pass over the data, without an incomplete last step; each pass leaves out different bundles."""
        return self.bundles // self.batch_size

    def global_batches(self, epoch: int, first_step: int) -> Iterator[list[int]]:
        """Yield the bundles of each step of an epoch, starting at a given step."""
        for step in range(first_step, self.steps_per_epoch):
            yield self.step_bundles(epoch * self.steps_per_epoch + step)

    def step_bundles(self, step: int) -> list[int]:
        """Return the bundles of a step, counted from 0 over the whole run."""
        number, place = divmod(step, self.steps_per_pass)
        found: list[int] = self._order(number)[place * self.batch_size : (place + 1) * self.batch_size].tolist()
        return found

    def _order(self, number: int) -> Tensor:
        return _permutation(self.bundles, self.seed, number)


@lru_cache(maxsize=2)
def _permutation(count: int, seed: int, number: int) -> Tensor:
    return torch.randperm(count, generator=generator(seed, Purpose.ORDER, number))


class TrainingBundles:
    """The training split, as a data set of bundles.

    Args:
        split: The training pairs.
        bundles: The indices of the pairs in each bundle.
        order: The training order, which determines the number of subwords in each step.
    """

    in_memory = True

    def __init__(self, split: Split, bundles: list[NDArray[numpy.int64]], order: BundleOrder) -> None:
        self.split = split
        self.bundles = bundles
        self.order = order
        self.targets = numpy.array([int(split.target.lengths[bundle].sum()) for bundle in bundles])

    def __len__(self) -> int:
        return len(self.bundles)

    def __getitems__(self, keys: list[SampleKey]) -> PairBatch:
        order = self.order
        step = keys[0].epoch * order.steps_per_epoch + keys[0].position // order.batch_size
        pieces = order.batch_size / len(keys)
        scale = pieces / int(self.targets[order.step_bundles(step)].sum())
        pairs = numpy.concatenate([self.bundles[key.sample] for key in keys])
        return _batch(self.split, pairs, scale)

    @property
    def mean_step(self) -> float:
        """Return the mean number of target subwords per step."""
        return float(self.targets.mean()) * self.order.batch_size


class EvaluatedBundles:
    """A split as a data set of bundles, in which each subword is predicted once."""

    in_memory = True

    def __init__(self, split: Split, most_subwords: int) -> None:
        self.split = split
        self.bundles = bundles_of(split, most_subwords, None)

    def __len__(self) -> int:
        return len(self.bundles)

    def __getitems__(self, keys: list[SampleKey]) -> PairBatch:
        counted = [self.bundles[key.sample] for key in keys if key.position >= 0]
        if not counted:  # every process must run the same number of batches
            return _batch(self.split, self.bundles[keys[0].sample][:1], 0.0)
        return _batch(self.split, numpy.concatenate(counted), 1.0)


def padding_share(split: Split, bundles: Sequence[NDArray[numpy.int64]]) -> float:
    """Return the fraction of padding in both sides, bundle by bundle."""
    padded = real = 0
    for bundle in bundles:
        for side in split:
            lengths = side.lengths[bundle]
            padded += int(lengths.max()) * len(bundle)
            real += int(lengths.sum())
    return 1 - real / padded


def padded(sentences: Sequence[NDArray[numpy.uint16]]) -> Tensor:
    """Stack sentences of different lengths into one (N, longest) int64 tensor, padded at the end."""
    rows = torch.full((len(sentences), max(map(len, sentences))), PAD, dtype=torch.int64)
    for row, sentence in zip(rows, sentences, strict=True):
        row[: len(sentence)] = torch.from_numpy(sentence.astype(numpy.int64))
    return rows


def _batch(split: Split, pairs: NDArray[numpy.int64], scale: float) -> PairBatch:
    targets = padded([split.target.sentence(number) for number in pairs.tolist()])
    places = (targets != PAD).flatten().nonzero().flatten()
    # the input starts with an end-of-sentence symbol; the sentence's own symbol is only a target
    shifted = targets[:, :-1].masked_fill(targets[:, 1:] == PAD, PAD)
    previous = torch.cat([torch.full((len(targets), 1), END), shifted], 1)
    source = padded([split.source.sentence(number) for number in pairs.tolist()])
    return PairBatch(source, previous, targets.flatten()[places], places, scale)
