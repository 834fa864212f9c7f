"""Print the block before a run's first step, and the commands to run after its last step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config.run_config import RunConfig
from ..data.orders import BatchPlan
from ..distributed.processes import Processes
from ..runs.results import Result
from ..tasks.opening import LabeledLine, Opening, next_steps, opening_lines, shown_line
from ..tasks.task import Task


def print_opening(
    opening: Opening,
    more: Sequence[LabeledLine],
    config: RunConfig,
    processes: Processes,
    plan: BatchPlan,
    folder: str,
    steps: int,
    data_are_missing: bool,
) -> None:
    """Print the task's description of a run, followed by the lines that every run has.

    Args:
        opening: The task's lines.
        more: Further lines, after those of the network.
        config: The run's configuration.
        processes: The processes; the main one prints.
        plan: How a batch is split among them.
        folder: The run folder, followed by "(new)" or "(continued)".
        steps: The number of optimizer steps in the whole run.
        data_are_missing: Whether the data could not be read.
    """
    lines = opening_lines(
        config,
        replace(opening, more=[*opening.more, *more]),
        folder=folder,
        device=processes.device_name,
        plan=plan,
        steps=steps,
        data_are_missing=data_are_missing,
    )
    for line in lines:
        processes.say(shown_line(line))


def print_end(task: Task[Any], folder: Path, result: Result, processes: Processes) -> None:
    """Print a finished run's result, the path of its curves, and the commands for the next steps."""
    processes.say(f"finished: {result.primary_metric.shown}; everything is in {folder}")
    for line in next_steps(task, folder):
        processes.say(shown_line(line))
