"""The processes that the launcher started: ranks, output of the main process, and collective operations."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..config.run_config import RunConfig
from ..messages.text_sinks import complain, say
from .devices import build_accelerator

Item = TypeVar("Item")


class Processes:
    """The processes of one program, each with its own device. A run has them as `run.processes`.

    Args:
        config: The run's configuration, with the precision, determinism, and tracker.
        folder: The folder for the tracker's files.

    Raises:
        RequestError: The launcher's processes cannot see each other, or the device does not support the precision.

    Examples:
        >>> from pathlib import Path
        >>> from golu_core.training import EpochConfig, Processes
        >>> processes = Processes(EpochConfig(), Path("runs"))
        >>> processes.count, processes.rank, processes.any(False)
        (1, 0, False)
    """

    def __init__(self, config: RunConfig, folder: Path) -> None:
        self.accelerator: Accelerator = build_accelerator(config, folder)
        self._print: Callable[[str], None] = say

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return self.accelerator.device

    @property
    def device_name(self) -> str:
        """The name of the device in result.json."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type

    @property
    def count(self) -> int:
        """The number of processes."""
        return self.accelerator.num_processes

    @property
    def rank(self) -> int:
        """The rank of this process, counted from 0."""
        return self.accelerator.process_index

    @property
    def is_main(self) -> bool:
        """Whether this is the main process, which writes files and prints."""
        return self.accelerator.is_main_process

    @property
    def is_sharding(self) -> bool:
        """Whether the launcher shards the model across the processes."""
        return bool(self.accelerator.distributed_type == DistributedType.FSDP)

    # ---------------------------------------------------------------------------------------------------- what is said

    def say(self, message: str) -> None:
        """Print a line, on the main process only."""
        if self.is_main:
            self._print(message)

    def say_through(self, print_line: Callable[[str], None]) -> None:
        """Print lines through another function from now on, such as that of a progress bar."""
        self._print = print_line

    def warn(self, message: str) -> None:
        """Print a warning on standard error, on the main process only."""
        if self.is_main:
            complain(f"warning: {message}")

    # ------------------------------------------------------------------------------------------------ what they share

    def main_first(self) -> AbstractContextManager[None]:
        """Run a block on the main process first, so that the other processes find the files that it writes."""
        first: AbstractContextManager[None] = self.accelerator.main_process_first()
        return first

    def wait_for_all(self) -> None:
        """Wait until every process has reached this call."""
        self.accelerator.wait_for_everyone()

    def sum(self, values: Tensor) -> Tensor:
        """Return the elementwise sum of a small tensor over all processes."""
        reduced: Tensor = self.accelerator.reduce(values, reduction="sum")
        return reduced

    def any(self, condition: bool) -> bool:
        """Return whether a condition holds on at least one process."""
        return condition if self.count == 1 else bool(self.sum(torch.tensor(float(condition), device=self.device)) > 0)

    def all_gather(self, items: list[Item]) -> list[Item]:
        """Return the items of all processes, in the order of their ranks, on every process."""
        if self.count == 1:
            return items
        parts: list[list[Item]] = [[] for _ in range(self.count)]
        torch.distributed.all_gather_object(parts, items)
        return [item for part in parts for item in part]

    def gathered_from(self, make: Callable[[], list[Item]]) -> list[Item]:
        """Call a function on each process and return all items on every process; an error on one is raised on all."""
        mine: list[Item] = []
        problems: list[Exception] = []
        try:
            mine = make()
        except Exception as error:  # or the others would wait forever
            problems = [error]
        parts = self.all_gather([(mine, problems)])
        for _, raised in parts:
            if raised:
                raise raised[0]
        return [item for items, _ in parts for item in items]

    def broadcast(self, make: Callable[[], Item]) -> Item:
        """Call a function on the main process and return its result on all processes; an error is raised on all."""
        found: list[Any] = [None, None]
        if self.is_main:
            try:
                found[0] = make()
            except Exception as error:  # or the others would wait forever
                found[1] = error
        if self.count > 1:
            torch.distributed.broadcast_object_list(found)
        if found[1] is not None:
            raise found[1]
        value: Item = found[0]
        return value

    # ------------------------------------------------------------------------------------------------------- networks

    def autocast(self) -> AbstractContextManager[None]:
        """Return a context with the run's precision, for a forward pass outside the prepared model."""
        context: AbstractContextManager[None] = self.accelerator.autocast()
        return context

    def with_common_batch_norm(self, model: nn.Module) -> nn.Module:
        """Return the model with synchronized batch norm, so that it computes the same with any number of processes."""
        if self.count == 1 or not any(isinstance(module, _BatchNorm) for module in model.modules()):
            return model
        if self.device.type == "cuda":
            common: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)
            return common
        self.warn("each process normalizes by its own images: without CUDA torch has no batch norm over processes")
        return model

    def share_buffers(self, model: nn.Module) -> None:
        """Copy the main process's buffers to every process; they differ if batch norm is not synchronized."""
        if self.count > 1:
            for buffer in model.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def end(self) -> None:
        """End the tracker and the process group."""
        self.accelerator.end_training()
