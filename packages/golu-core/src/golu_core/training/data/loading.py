"""Loaders: batches from memory or from loader processes, whose failures and ends are one message.

The order in which a batch comes to a training process:

1. `orders.TrainBatches` yields the sample keys of this process's next micro-batch.
2. A loader process, or this one for data in memory, calls the data set's `__getitems__` with them. A RequestError
   becomes a value, since crossing processes would wrap it in a traceback.
3. `packing.packed` puts the batch's small tensors into one block of shared memory, and `unpacked` takes them out here.
4. `loaded` raises what was refused, and turns the death of a loader process into a RunFailure.
5. `TrainingLoader.micro_batches` numbers the micro-batches of a step.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ..distributed.signals import held_back, outlive_signals
from ..messages.errors import RequestError, RunFailure
from .orders import BatchDataset, BatchPlan, EvaluationBatches, SampleKey, SampleOrder, TrainBatches
from .packing import Packed, packed, unpacked
from .seeding import Purpose, generator


class LoadedMicroBatch(NamedTuple):
    """A process's part of an optimizer step.

    Attributes:
        batch: The batch, as returned by the data set.
        number: The index of the micro-batch in the step, counted from 0.
        ends_step: Whether it is the step's last micro-batch.
    """

    batch: Any
    number: int
    ends_step: bool


class TrainingLoader:
    """One process's share of every global batch.

    Args:
        dataset: The training set.
        order: The order of the samples in each epoch.
        plan: How a batch is split among processes and micro-batches.
        rank: The rank of this process.
        num_workers: The number of loader processes; None uses a share of the cores, or 0 for data in memory.
    """

    def __init__(
        self, dataset: BatchDataset, order: SampleOrder, plan: BatchPlan, rank: int, num_workers: int | None
    ) -> None:
        self.order = order
        self.plan = plan
        self._batches = TrainBatches(order, plan, rank)
        self._loader = _loader(dataset, self._batches, num_workers, plan.processes)

    def micro_batches(self, epoch: int, first_step: int) -> Iterator[LoadedMicroBatch]:
        """Yield the micro-batches of an epoch, starting at a step.

        Raises:
            RequestError: A sample cannot be read; the message is the data set's.
            RunFailure: A loader process was killed.
        """
        self._batches.begin(epoch, first_step)
        for count, batch in enumerate(loaded(self._loader)):
            number = count % self.plan.accumulation
            yield LoadedMicroBatch(batch, number, number == self.plan.accumulation - 1)


def evaluation_loader(
    dataset: BatchDataset, device_size: int, processes: int, rank: int, num_workers: int | None
) -> DataLoader[Any]:
    """Return a loader of one process's share of a test set, in batches of equal size."""
    size = min(device_size, -(-len(dataset) // processes)) if len(dataset) else device_size
    return _loader(dataset, EvaluationBatches(len(dataset), size, processes, rank), num_workers, processes)


def _loader(
    dataset: BatchDataset, batches: Sampler[list[SampleKey]], num_workers: int | None, processes: int
) -> DataLoader[Any]:
    workers = _default_workers(dataset.in_memory, processes) if num_workers is None else num_workers
    return DataLoader(
        _Guarded(dataset),
        batch_sampler=batches,
        collate_fn=packed if workers else _as_loaded,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=outlive_signals if workers else None,
        pin_memory=torch.cuda.is_available(),
        generator=generator(Purpose.LOADER),  # or iterating would draw from torch's global generator
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
    """Yield the loader's batches.

    Raises:
        RequestError: A sample cannot be read; the message is the data set's.
        RunFailure: A loader process was killed.
    """
    with held_back():  # while the loader processes start
        before = set(multiprocessing.active_children())
        with _dead_loaders_are_failures(loader):
            batches = iter(loader)
        _loader_processes.update(set(multiprocessing.active_children()) - before)
    while True:
        with _dead_loaders_are_failures(loader):
            try:
                batch = next(batches)
            except StopIteration:
                return
        if isinstance(batch, Packed):
            batch = unpacked(batch)
        if isinstance(batch, _Refusal):
            raise RequestError(batch.message)
        yield batch


@contextmanager
def _dead_loaders_are_failures(loader: DataLoader[Any]) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError, FileNotFoundError) as error:
        if not loader.num_workers or not _is_of_a_dead_loader(error):
            raise
        seen = next(iter(str(error).splitlines()), type(error).__name__)  # an EOFError says nothing
        raise RunFailure(
            f"a loader process was killed, perhaps because memory ran out ({seen}); "
            f"--num-workers 0 loads without such processes"
        ) from error


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


def _default_workers(in_memory: bool, processes: int) -> int:
    """Loader processes of one training process: none for data in memory, else its share of the cores, at most 16."""
    if in_memory:
        return 0
    local = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    return max(1, min(16, (os.cpu_count() or 1) // max(1, local)))
