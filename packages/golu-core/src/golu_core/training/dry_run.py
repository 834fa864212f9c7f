"""`--dry-run`: what a run would be, printed; nothing is trained, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from torch import nn

from .config import Config, limited_steps
from .data import plan_batches
from .errors import RequestError
from .folder import RunFolder
from .processes import Processes
from .results import SwappedActivations
from .run_files import run_folder
from .tasks import Task

Loaded = TypeVar("Loaded")


class DryRun(Generic[Config]):
    """A run that is described and not begun.

    Args:
        config: of the run.
        task: that it belongs to.

    Raises:
        RequestError: the run folder belongs to another config, or the batch does not divide among the processes.
    """

    def __init__(self, config: Config, task: Task[Config]) -> None:
        self.config = config
        self.folder = run_folder(config, task.name)
        self.processes = Processes(config, self.folder)
        RunFolder(self.folder, task.outputs).check_owner(config)
        self.plan = plan_batches(config.batch_size, self.processes.count, config.max_device_batch)
        self._missing = ""

    def data(self, load: Callable[[], Loaded], are_own: bool = False) -> Loaded | None:
        """The data, or None where they are missing, which is then said.

        Args:
            load: loads them.
            are_own: they are the user's own: what is wrong with them is refused, as it is with `--check-data`.
        """
        try:
            return load()
        except RequestError as error:
            if self.config.check_data or are_own:
                raise
            self._missing = str(error)
            return None

    def show(
        self,
        *,
        data: str,
        model: str,
        swapped: SwappedActivations,
        steps_per_epoch: int,
        batch: str,
        more: Sequence[tuple[str, str]] = (),
        epoch: str = "",
    ) -> None:
        """Prints the description.

        Args:
            data: what was found; is not read where the data are missing.
            model: its name and sizes.
            swapped: what became of its activations.
            steps_per_epoch: optimizer steps.
            batch: what one step takes, such as `256 images`.
            more: further lines, each a name and a text.
            epoch: what an epoch is, printed after the steps.
        """
        config, plan = self.config, self.plan
        steps = limited_steps(config, config.length(steps_per_epoch).steps)
        split = f"{plan.processes} processes x {plan.accumulation} accumulated x {plan.device_size}"
        lines = [
            ("recipe", f"{config.recipe}, activation {config.activation}, seed {config.seed}"),
            ("run folder", str(self.folder)),
            ("data", f"missing: {self._missing}" if self._missing else data),
            ("model", model),
            *more,
            ("activations", f"{swapped.swapped} {config.own_activation} swapped for {config.activation}"),
            *(("", line) for line in swapped.lines()),
            ("steps", f"{steps:,} of {batch} ({split}){epoch}"),
        ]
        for name, text in lines:
            self.processes.say(f"{name:<13}{text}")


def parameter_count(model: nn.Module, trained_only: bool = False) -> int:
    """How many numbers a model has."""
    parameters: Any = model.parameters()
    return sum(p.numel() for p in parameters if p.requires_grad or not trained_only)
