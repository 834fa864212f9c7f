"""Human-readable progress: a bar on a terminal, occasional lines in a log file, and nothing elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from .text_sinks import console

_SECONDS_BETWEEN_LINES = 15.0


class TrainingProgress:
    """A progress bar, shown on the main process only.

    Args:
        total_steps: The number of optimizer steps in the whole run.
        unit: The unit of throughput, such as `images/s`.
        enabled: Whether to show anything; False on all processes except the main one.
    """

    def __init__(self, total_steps: int, unit: str, enabled: bool) -> None:
        self._total = total_steps
        self._unit = unit
        self._console = console(file=sys.stdout, soft_wrap=True, quiet=not enabled)
        self._last_line = time.monotonic()
        self._bar: Progress | None = None
        self._task = TaskID(0)
        if enabled and self._console.is_terminal:
            columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
            self._bar = Progress(*columns, TextColumn("{task.fields[shown]}"), console=self._console)
            self._task = self._bar.add_task("training", total=total_steps, shown="")
            self._bar.start()

    def step(self, step: int, epoch: str, loss: float, lr: float, throughput: float) -> None:
        """Show an optimizer step; `step` is the number of completed steps, and `epoch` is printed unchanged."""
        shown = f"loss {loss:.4g}  lr {lr:.3g}  {throughput:,.0f} {self._unit}"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=f"epoch {epoch}", shown=shown)
        elif time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            self.say(f"step {step}/{self._total}  epoch {epoch}  {shown}")

    def say(self, message: str) -> None:
        """Print a line above the bar."""
        self._console.print(message)

    def metrics(self, epoch: str, step: int, split: str, values: dict[str, Any]) -> None:
        """Print the metrics of a split, `test` or `validation`, after a step."""
        self._last_line = time.monotonic()
        shown = "  ".join(f"{name} {value:.5g}" for name, value in values.items())
        self.say(f"epoch {epoch}  step {step}/{self._total}  {split}: {shown}")

    def close(self) -> None:
        """Close the bar and restore the terminal."""
        if self._bar is not None:
            self._bar.stop()


@contextmanager
def progress_bar(title: str, total: int, shown: bool) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on standard error, or nothing.

    Yields:
        The function to call with the current position.
    """
    with Progress(console=console(stderr=True), disable=not shown) as progress:
        task = progress.add_task(title, total=total)
        yield lambda position: progress.update(task, completed=position)
