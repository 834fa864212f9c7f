"""Which samples make up which batch: a function of (seed, epoch, position), for any number of processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch.utils.data import Sampler

from ..messages.errors import RequestError
from .seeding import Purpose, generator


class SampleKey(NamedTuple):
    """One sample of one batch; a data set's `__getitems__` takes a list of them and returns the batch.

    Attributes:
        sample: The index of the sample in the data set.
        epoch: The epoch, counted from 0; -1 in evaluation.
        position: The position within the epoch's order, from which you seed augmentation. In evaluation it is the index
            of the sample, or -1 where the sample only fills up a batch and must not be counted.

    Examples:
        >>> from golu_core.training import SampleKey
        >>> labels, keys = ["cat", "dog", "owl"], [SampleKey(sample=2, epoch=0, position=0), SampleKey(0, 0, 1)]
        >>> [labels[key.sample] for key in keys]
        ['owl', 'cat']
    """

    sample: int
    epoch: int
    position: int


class BatchDataset(Protocol):
    """A data set that loads whole batches: the order is decided here, what a batch looks like is the task's."""

    in_memory: bool

    def __len__(self) -> int: ...

    def __getitems__(self, keys: list[SampleKey]) -> Any: ...


@dataclass(frozen=True)
class MissingSamples:
    """A data set that is not there and whose size is known: a dry run describes it, and nothing can be read."""

    length: int
    in_memory = False

    def __len__(self) -> int:
        return self.length

    def __getitems__(self, keys: list[SampleKey]) -> Any:
        raise RuntimeError("these data are missing, and a dry run reads none of them")


@dataclass(frozen=True)
class BatchPlan:
    """How a global batch is split: `global_size = processes * accumulation * device_size`."""

    global_size: int
    processes: int
    accumulation: int
    device_size: int


def plan_batches(global_size: int, processes: int, max_device_size: int | None = None) -> BatchPlan:
    """Split the global batch evenly, into as few micro-batches as the device's limit allows.

    Raises:
        RequestError: The batch cannot be split evenly; the message lists sizes that can.
    """
    if global_size < 1:
        raise RequestError(f"a batch of {global_size} samples is impossible")
    if global_size % processes:
        near = sorted({global_size // processes * processes, -(-global_size // processes) * processes} - {0})
        fitting = [str(n) for n in range(1, min(global_size, 64) + 1) if global_size % n == 0]
        raise RequestError(
            f"a batch of {global_size} does not divide among {processes} processes: "
            f"use a batch of {' or '.join(map(str, near))}, or {', '.join(fitting)} processes"
        )
    share = global_size // processes
    limit = share if max_device_size is None else max_device_size
    if limit < 1:
        raise RequestError(f"a limit of {limit} samples per device is impossible")
    accumulation = next(k for k in range(-(-share // limit), share + 1) if share % k == 0)
    return BatchPlan(global_size, processes, accumulation, share // accumulation)


class SampleOrder(Protocol):
    """Which samples make up each global batch of an epoch, the same on every process."""

    @property
    def batch_size(self) -> int: ...

    @property
    def seed(self) -> int: ...

    @property
    def steps_per_epoch(self) -> int: ...

    def global_batches(self, epoch: int, first_step: int) -> Iterator[list[int]]:
        """The samples of each global batch of an epoch from a step on."""
        ...


@dataclass(frozen=True)
class EpochOrder:
    """The order of a data set's samples in each epoch, split into global batches; a function of the seed and the epoch.

    Attributes:
        length: The number of samples in the data set.
        batch_size: The global batch size.
        seed: The run's seed.
        drop_last: Leave out the samples that do not fill a batch; otherwise the epoch's first samples fill it up.
        repeats: The number of times that each sample occurs in a row (repeated augmentation: Hoffer et al., CVPR 2020,
            as in torchvision's reference sampler); the epoch still has about `length` samples.

    Examples:
        >>> from golu_core.training import EpochOrder
        >>> order = EpochOrder(length=5, batch_size=2, seed=0)
        >>> list(order.global_batches(epoch=0, first_step=0))
        [[2, 4], [0, 3], [1, 2]]
    """

    length: int
    batch_size: int
    seed: int
    drop_last: bool = False
    repeats: int = 1

    def __post_init__(self) -> None:
        if self.length < 1:
            raise RequestError("the training set is empty")
        if self.batch_size > self.length:
            raise RequestError(f"a batch of {self.batch_size} is larger than the training set of {self.length} samples")

    @property
    def steps_per_epoch(self) -> int:
        """The number of global batches in an epoch."""
        # torchvision's RASampler rounds the epoch down to whole multiples of 256
        samples = self.length if self.repeats == 1 else max(self.length // 256 * 256, min(self.length, 256))
        return samples // self.batch_size if self.drop_last else -(-samples // self.batch_size)

    def indices(self, epoch: int) -> torch.Tensor:
        """The epoch's sample indices: (steps_per_epoch * batch_size,) int64."""
        order = torch.randperm(self.length, generator=generator(self.seed, Purpose.ORDER, epoch))
        order = order.repeat_interleave(self.repeats)
        needed = self.steps_per_epoch * self.batch_size
        return order.repeat(-(-needed // len(order)))[:needed]

    def global_batches(self, epoch: int, first_step: int) -> Iterator[list[int]]:
        """The samples of each global batch of an epoch from a step on."""
        indices = self.indices(epoch).tolist()
        for step in range(first_step, self.steps_per_epoch):
            yield indices[step * self.batch_size : (step + 1) * self.batch_size]


class TrainBatches(Sampler[list[SampleKey]]):
    """One process's share of every global batch of an epoch, `accumulation` lists per step."""

    def __init__(self, order: SampleOrder, plan: BatchPlan, rank: int) -> None:
        self.order = order
        self.plan = plan
        self.rank = rank
        self.epoch = 0
        self.first_step = 0

    def begin(self, epoch: int, first_step: int) -> None:
        """Set the position where the next iteration starts."""
        self.epoch, self.first_step = epoch, first_step

    def __iter__(self) -> Iterator[list[SampleKey]]:
        size = self.plan.device_size
        batches = self.order.global_batches(self.epoch, self.first_step)
        for step, samples in enumerate(batches, self.first_step):
            for micro in range(self.plan.accumulation):
                start = (micro * self.plan.processes + self.rank) * size
                position = step * self.plan.global_size + start
                piece = samples[start : start + size]
                yield [SampleKey(sample, self.epoch, position + k) for k, sample in enumerate(piece)]

    def __len__(self) -> int:
        return (self.order.steps_per_epoch - self.first_step) * self.plan.accumulation


class EvaluationBatches(Sampler[list[SampleKey]]):
    """One process's share of a test set: every sample counted once, and every process with as many batches."""

    def __init__(self, length: int, device_size: int, processes: int, rank: int) -> None:
        if length < 1:
            raise RequestError("the test set is empty")
        self.length = length
        self.device_size = device_size
        self.processes = processes
        self.rank = rank

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for batch in range(len(self)):
            start = (batch * self.processes + self.rank) * self.device_size
            positions = range(start, start + self.device_size)
            yield [SampleKey(p, -1, p) if p < self.length else SampleKey(self.length - 1, -1, -1) for p in positions]

    def __len__(self) -> int:
        return -(-self.length // (self.device_size * self.processes))
