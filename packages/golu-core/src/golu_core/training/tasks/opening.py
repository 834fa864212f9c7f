"""The block that a run prints before its first step: the network, the data, the device, and the number of steps.

After the last step, the run prints the commands for the next steps.

A dry run stops after this block, so both print the same lines and refuse the same requests.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..config.run_config import RunConfig
from ..data.orders import BatchPlan
from ..runs.results import SwappedActivations
from ..runs.run_files import CURVES_FILE
from .task import Task

_LABEL_WIDTH = 13
_PRECISIONS = {"no": "float32", "bf16": "bfloat16 autocast", "fp16": "float16 autocast"}

LabeledLine = tuple[str, str]


@dataclass(frozen=True)
class Opening:
    """The lines that only a task can write in the block that a run prints before its first step.

    Attributes:
        data: The sizes of the splits; not printed where the data are missing.
        model: The network's name and size.
        swapped: What was swapped in the network.
        batch: What an optimizer step trains on, such as `256 images`.
        length: How many steps make an epoch or a pass, printed after the steps, such as `, 23 an epoch`.
        more: Further lines, each a label and a text.

    Examples:
        >>> from golu_core.training import Opening, SwappedActivations
        >>> swapped = SwappedActivations(2, [])
        >>> opening = Opening("455 training and 114 test rows", "MLP, 2,114 parameters", swapped, batch="32 rows")
        >>> opening.batch, opening.swapped.swapped
        ('32 rows', 2)
    """

    data: str
    model: str
    swapped: SwappedActivations
    batch: str
    length: str = ""
    more: Sequence[LabeledLine] = ()


def opening_lines(
    config: RunConfig,
    opening: Opening,
    *,
    folder: str,
    device: str,
    plan: BatchPlan,
    steps: int,
    data_are_missing: bool,
) -> list[LabeledLine]:
    """Return the block as pairs of a label and a text.

    Args:
        config: The run's configuration.
        opening: What the task knows.
        folder: The run folder, and whether a run is continued there.
        device: The device of the main process.
        plan: How a batch is split among processes.
        steps: Optimizer steps of the whole run.
        data_are_missing: Whether the data could not be read, so that the block shows the published sizes.
    """
    parts = f"{_count(plan.processes, 'process')} x {_count(plan.accumulation, 'micro-batch')} of {plan.device_size}"
    compiled = ", compiled" if config.compile else ""
    return [
        ("recipe", f"{config.recipe}, activation {config.activation}, seed {config.seed}"),
        ("run folder", folder),
        ("device", f"{device}, {_PRECISIONS[config.mixed_precision]}{compiled}"),
        ("data", "missing or unreadable" if data_are_missing else opening.data),
        ("model", opening.model),
        *opening.more,
        ("activations", f"{opening.swapped.swapped} {config.default_activation} swapped for {config.activation}"),
        *(("", line) for line in opening.swapped.lines()),
        ("steps", f"{steps:,} of {opening.batch} ({parts}){opening.length}"),
    ]


def next_steps(task: Task[Any], folder: Path) -> list[LabeledLine]:
    """Return the path of a finished run's curves, and the commands for the next steps, quoted for a shell."""
    run = shlex.quote(str(folder))
    use = next((name for name, command in task.commands.items() if command.takes_run and name != "export"), "export")
    lines = [("curves", str(folder / CURVES_FILE)), ("evaluate", f"{task.program} evaluate {run}")]
    if use in task.commands:
        arguments = [word.partition("|")[0] for word in task.commands[use].usage.split(" ")[1:] if word[0] != "["]
        lines.append((use, " ".join([task.program, use, run, *arguments])))
    return lines


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'es' * (number != 1)}"


def shown_line(line: LabeledLine) -> str:
    """Return a line of the block as it is printed."""
    label, text = line
    return f"{label:<{_LABEL_WIDTH}}{text}"


def parameter_count(model: nn.Module, trained_only: bool = False) -> int:
    """Return the number of parameters of a model, or of those that are trained.

    Args:
        model: Any module.
        trained_only: Whether to leave out frozen parameters.

    Examples:
        >>> from torch import nn
        >>> from golu_core.training import parameter_count
        >>> f"{parameter_count(nn.Linear(100, 50)):,} parameters"
        '5,050 parameters'
    """
    parameters: Any = model.parameters()
    return sum(p.numel() for p in parameters if p.requires_grad or not trained_only)
