"""Which samples make up which batch: a function of (seed, epoch, position), for any number of processes."""

from __future__ import annotations

import atexit
import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from .errors import RequestError, RunFailure
from .seeding import generator
from .signals import held_back, outlive_signals


class SampleKey(NamedTuple):
    """One sample of one batch.

    Attributes:
        sample: which sample of the data set.
        epoch: which epoch; -1 in evaluation.
        position: place in the epoch's order, from which augmentation is seeded. Evaluation has the sample there, or -1
            where the sample only fills a batch and must not be counted.
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
class BatchPlan:
    """How a global batch is split: `global_size = processes * accumulation * device_size`."""

    global_size: int
    processes: int
    accumulation: int
    device_size: int


def plan_batches(global_size: int, processes: int, max_device_size: int | None = None) -> BatchPlan:
    """Splits the global batch evenly, with as few accumulated pieces as the device's limit allows.

    Raises:
        RequestError: the batch cannot be split evenly; the message names sizes that can.
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
        raise RequestError(f"at most {limit} samples a device is impossible")
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
    """The order of one data set's samples in each epoch, cut into global batches.

    Attributes:
        length: samples in the data set.
        batch_size: global batch size.
        seed: the run's seed.
        drop_last: leave out the samples that do not fill a batch; otherwise the epoch's first samples fill it up.
        repeats: repeated augmentation (Hoffer et al., CVPR 2020, as in torchvision's reference sampler): each sample
            stands `repeats` times in a row, and the epoch still has about `length` of them.
    """

    length: int
    batch_size: int
    seed: int
    drop_last: bool = False
    repeats: int = 1

    def __post_init__(self) -> None:
        if self.length < 1:
            raise RequestError("the training set has no sample")
        if self.batch_size > self.length:
            raise RequestError(f"a batch of {self.batch_size} is larger than the training set of {self.length} samples")

    @property
    def steps_per_epoch(self) -> int:
        """Global batches in an epoch."""
        # torchvision's RASampler rounds the epoch down to whole multiples of 256
        samples = self.length if self.repeats == 1 else max(self.length // 256 * 256, min(self.length, 256))
        return samples // self.batch_size if self.drop_last else -(-samples // self.batch_size)

    def indices(self, epoch: int) -> torch.Tensor:
        """The epoch's sample indices: (steps_per_epoch * batch_size,) int64."""
        order = torch.randperm(self.length, generator=generator(self.seed, "order", epoch))
        order = order.repeat_interleave(self.repeats)
        needed = self.steps_per_epoch * self.batch_size
        return order.repeat(-(-needed // len(order)))[:needed]

    def global_batches(self, epoch: int, first_step: int) -> Iterator[list[int]]:
        """The samples of each global batch of an epoch from a step on."""
        indices = self.indices(epoch).tolist()
        for step in range(first_step, self.steps_per_epoch):
            yield indices[step * self.batch_size : (step + 1) * self.batch_size]


class TrainBatches(Sampler[list[SampleKey]]):
    """One process's share of every global batch of an epoch, `accumulation` lists a step."""

    def __init__(self, order: SampleOrder, plan: BatchPlan, rank: int) -> None:
        self.order = order
        self.plan = plan
        self.rank = rank
        self.epoch = 0
        self.first_step = 0

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
            raise RequestError("the test set has no sample")
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


def train_loader(
    dataset: BatchDataset, order: SampleOrder, plan: BatchPlan, rank: int, num_workers: int | None
) -> DataLoader[Any]:
    """A loader of one process's training batches; `Run.batches` tells its sampler the epoch and the step."""
    return _loader(dataset, TrainBatches(order, plan, rank), num_workers, plan.processes)


def evaluation_loader(
    dataset: BatchDataset, device_size: int, processes: int, rank: int, num_workers: int | None
) -> DataLoader[Any]:
    """A loader of one process's share of a test set, in batches of one size."""
    size = min(device_size, -(-len(dataset) // processes)) if len(dataset) else device_size
    return _loader(dataset, EvaluationBatches(len(dataset), size, processes, rank), num_workers, processes)


def _loader(
    dataset: BatchDataset, batches: Sampler[list[SampleKey]], num_workers: int | None, processes: int
) -> DataLoader[Any]:
    workers = default_workers(dataset.in_memory, processes) if num_workers is None else num_workers
    return DataLoader(
        _Guarded(dataset),
        batch_sampler=batches,
        collate_fn=_as_loaded,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=outlive_signals if workers else None,
        pin_memory=torch.cuda.is_available(),
        generator=generator("loader"),  # or iterating would draw from torch's global generator
    )


def _as_loaded(batch: Any) -> Any:
    return batch


@dataclass(frozen=True)
class _Refusal:
    """A RequestError on its way out of a loader process, which would wrap it in a traceback."""

    message: str


class _Guarded(Dataset[Any]):
    def __init__(self, dataset: BatchDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, keys: list[SampleKey]) -> Any:
        try:
            return self.dataset.__getitems__(keys)
        except RequestError as error:
            return _Refusal(str(error))


def loaded(loader: DataLoader[Any]) -> Iterator[Any]:
    """The loader's batches.

    Raises:
        RequestError: a sample cannot be read; with the data set's own message.
        RunFailure: a loader process was killed.
    """
    with held_back():  # while the loader processes start
        before = set(multiprocessing.active_children())
        batches = iter(loader)
        _loader_processes.update(set(multiprocessing.active_children()) - before)
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except (RuntimeError, ConnectionError, EOFError, FileNotFoundError) as error:
            if not loader.num_workers or not _is_of_a_dead_loader(error):
                raise
            raise RunFailure(
                f"a loader process ended, as the system ends processes when memory is short "
                f"({str(error).splitlines()[0]}); --num-workers 0 loads without one"
            ) from error
        if isinstance(batch, _Refusal):
            raise RequestError(batch.message)
        yield batch


_loader_processes: set[Any] = set()


@atexit.register
def _end_loaders() -> None:
    """Ends the loaders of a program that fails: they ignore the signal that multiprocessing would end them by."""
    for process in _loader_processes:
        if process.is_alive():
            process.kill()


def _is_of_a_dead_loader(error: Exception) -> bool:
    """Whether a loader was found dead, or fell silent in the middle of a batch; an error of its own says `Caught`."""
    text = str(error)
    return "DataLoader worker (pid" in text or (not isinstance(error, RuntimeError) and "Caught" not in text)


def default_workers(in_memory: bool, processes: int) -> int:
    """Loader processes of one training process: none for data in memory, else its share of the cores, at most 16."""
    if in_memory:
        return 0
    local = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    return max(1, min(16, (os.cpu_count() or 1) // max(1, local)))
