"""`golu-core analyze times`: a training step and an inference of each recipe's own network, activation by activation.

The paper's second table. Networks take turns in one process, so that a disturbance meets all of them alike, and what is
compared are the times of one round.
"""

from __future__ import annotations

import math
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from rich.progress import track

from golu_core.training.config.optim import build_optimizer
from golu_core.training.config.run_config import RunConfig, checked
from golu_core.training.distributed.devices import default_device
from golu_core.training.figures.drawing import new_figure
from golu_core.training.messages.errors import RequestError
from golu_core.training.tasks.task import named_recipe
from golu_core.training.tasks.timing_model import TimingModel, make_timing_model

from ..reporting.figures import NamedFigure, plain_style
from ..reporting.formats import console
from ..reporting.looks import color
from ..reporting.metrics import in_table_order, paper_name
from ..reporting.paired import pseudomedian, signed_rank_interval
from ..reporting.summary import geometric_mean
from ..reporting.tables import Table, TableCell, TableRow
from .findings import Findings

_FEWEST_ROUNDS = 6  # with fewer, the signed-rank test has no interval of 95 %
_CPU_SAMPLES = 8
"""A small batch, because the paper's networks are slow on a CPU."""
_WARM_UP = 3
"""Steps before the first measurement, in which libraries compile and choose algorithms."""
_PARTS = ("training", "inference")
_WHAT = {"training": "A step of forward, backward and optimizer", "inference": "A forward pass without gradients"}
_PAPER = {
    "training": "The paper's second table has 1.01 for GoLU on average, and at most 1.14 (DeepLabV3).",
    "inference": "The paper's second table has 1.00 for GoLU on average, and at most 1.04 (DeepLabV3).",
}

Precision = Literal["no", "bf16", "fp16"]


@dataclass(frozen=True)
class Times:
    """Seconds of one recipe's networks.

    Attributes:
        recipe: The recipe of the network.
        own: the activation of the network as published.
        samples: The batch size.
        precision: `no`, `bf16` or `fp16`.
        seconds: The seconds of each round, by `training` or `inference` and activation.
    """

    recipe: str
    own: str
    samples: int
    precision: str
    seconds: Mapping[str, Mapping[str, Sequence[float]]]

    def relative(self, part: str, activation: str) -> tuple[float, tuple[float, float]]:
        """Hodges and Lehmann's estimate of the ratio to the own activation's time, and its interval of 95 %.

        Raises:
            RequestError: the rounds are too few for an interval.
        """
        pairs = zip(self.seconds[part][activation], self.seconds[part][self.own], strict=True)
        logarithms = [math.log(one / own) for one, own in pairs]
        interval = signed_rank_interval(logarithms, 0.05)
        if interval is None:
            raise RequestError(f"an interval needs {_FEWEST_ROUNDS} rounds or more")
        return math.exp(pseudomedian(logarithms)), (math.exp(interval[0]), math.exp(interval[1]))


def analyze_times(
    recipes: Sequence[str],
    activations: Sequence[str],
    *,
    samples: int | None,
    rounds: int,
    precision: Precision | None,
    compiled: bool,
) -> Findings:
    """Relative times of recipes' networks.

    Args:
        recipes: The names of the recipes.
        activations: The activations to compare with each network's default activation.
        samples: The batch size; None for the recipe's micro-batch size on a GPU, and 8 on a CPU.
        rounds: measurements of each network.
        precision: `no`, `bf16` or `fp16`; None takes the recipe's.
        compiled: Whether to compile the networks with torch.compile.

    Raises:
        RequestError: a recipe is unknown, its task offers no timing model, or the precision is not there.
    """
    if not recipes:
        raise RequestError("name the recipes whose networks are timed, such as digits")
    device = default_device()
    named = [named_recipe(text) for text in dict.fromkeys(recipes)]
    found = []
    output = console()
    for task, recipe in track(named, "times", console=output, transient=True, disable=not output.is_terminal):
        config: RunConfig = replace(recipe, mixed_precision=precision or recipe.mixed_precision)
        if config.mixed_precision == "fp16" and device.type == "cpu":
            raise RequestError("fp16 needs a GPU; on a CPU use --mixed-precision bf16 or no")
        most = config.micro_batch_size or config.batch_size
        count = samples or (min(most, _CPU_SAMPLES) if device.type == "cpu" else most)
        names = in_table_order({config.default_activation, *activations})
        steps: dict[str, dict[str, Callable[[], None]]] = {part: {} for part in _PARTS}
        for name in names:
            chosen = checked(replace(config, activation=name))
            training, inference = _steps(chosen, make_timing_model(task, chosen, count, device), device, compiled)
            steps["training"][name], steps["inference"][name] = training, inference
        seconds = {part: _in_turns(steps[part], rounds, device) for part in _PARTS}
        found.append(Times(config.recipe, config.default_activation, count, config.mixed_precision, seconds))
    return _findings(found, device, compiled)


def _steps(
    config: RunConfig, timed: TimingModel, device: torch.device, compiled: bool
) -> tuple[Callable[[], None], Callable[[], None]]:
    """A training step with the recipe's optimizer, and an inference without gradients, of one network."""
    optimizer = build_optimizer(timed.model, config.optim, device)
    model: Any = torch.compile(timed.model) if compiled else timed.model
    dtype = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}[config.mixed_precision]

    def precision() -> AbstractContextManager[Any]:
        return nullcontext() if dtype is None else torch.autocast(device.type, dtype)

    def training() -> None:
        model.train()
        with precision():
            loss = timed.training_loss(model)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    @torch.no_grad()
    def inference() -> None:
        model.eval()
        with precision():
            timed.infer(model)

    return training, inference


def _in_turns(steps: Mapping[str, Callable[[], None]], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each step in each round; every round begins with another one."""
    names = list(steps)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-_WARM_UP, rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            _wait(device)
            start = time.perf_counter()
            steps[name]()
            _wait(device)
            if number >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _findings(found: Sequence[Times], device: torch.device, compiled: bool) -> Findings:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type}, {platform.machine()}"
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    place = f"{name}{threads}, {'compiled' if compiled else 'eager'}"
    tables = [_table(found, part, place) for part in _PARTS]
    with plain_style():
        figures = [_figure(found, place)]
    records = [
        {
            "recipe": times.recipe,
            "default_activation": times.own,
            "samples": times.samples,
            "mixed_precision": times.precision,
            "activation": activation,
            **{part: _record(times, part, activation) for part in _PARTS},
        }
        for times in found
        for activation in times.seconds["training"]
    ]
    cannot = [
        "Made-up batches, without loading and augmentation of data: of a network alone. Untrained detectors find other "
        "numbers of objects than trained ones, which moves the times of their second stages, those of masks most.",
        "On a CPU with small batches an activation's share of the time is another one than on a GPU.",
    ]
    return Findings("times", tables, figures, {"device": place, "torch": torch.__version__, "times": records}, cannot)


def _record(times: Times, part: str, activation: str) -> dict[str, Any]:
    ratio, interval = times.relative(part, activation)
    seconds = times.seconds[part][activation]
    return {"relative": ratio, "interval": list(interval), "median_seconds": statistics.median(seconds)}


def _table(found: Sequence[Times], part: str, place: str) -> Table:
    activations = in_table_order({name for times in found for name in times.seconds[part]})
    columns = tuple(map(paper_name, activations))
    table = Table(f"Relative time of {part}", ("recipe", "own activation"), columns)
    for times in found:
        cells = [_cell(times, part, name) if name in times.seconds[part] else "–" for name in activations]
        table.rows.append(TableRow((times.recipe, paper_name(times.own)), tuple(map(TableCell, cells))))
    if len(found) > 1:
        means = [
            geometric_mean(times.relative(part, name)[0] for times in found if name in times.seconds[part])
            for name in activations
        ]
        table.rows.append(
            TableRow(("geometric mean", ""), tuple(TableCell(f"{mean:.3f}") for mean in means), minor=True)
        )
    rounds = len(next(iter(found[0].seconds[part].values())))
    table.notes.append(
        f"{_WHAT[part]}, as a multiple of the default activation's, on {place}. Hodges and Lehmann's estimate over "
        f"{rounds} rounds in which the networks alternate, with its interval of 95 % by the signed-rank test, "
        f"each by itself. {_PAPER[part]}"
    )
    return table


def _cell(times: Times, part: str, activation: str) -> str:
    if activation == times.own:
        return "1"
    ratio, (low, high) = times.relative(part, activation)
    return f"{ratio:.3f} ({low:.3f}–{high:.3f})"


def _figure(found: Sequence[Times], place: str) -> NamedFigure:
    figure = new_figure(7.2, 1.4 + 0.35 * len(found))
    panels = figure.subplots(1, 2, sharey=True, sharex=True)
    activations = in_table_order({name for times in found for name in times.seconds["training"]})
    for axes, part in zip(panels, _PARTS, strict=True):
        axes.axvline(1.0, color="gray", linewidth=0.8)
        for row, times in enumerate(reversed(found)):
            others = [name for name in activations if name in times.seconds[part] and name != times.own]
            for place_of, name in enumerate(others):
                ratio, (low, high) = times.relative(part, name)
                height = row + 0.3 * ((place_of + 0.5) / len(others) - 0.5)
                axes.errorbar(
                    [ratio], [height], xerr=[[ratio - low], [high - ratio]], fmt="o", color=color(name), capsize=2
                )
        axes.set(title=part, xlabel="own activation = 1", ylim=(-0.6, len(found) - 0.4))
        axes.grid(True, axis="x")
    panels[0].set_yticks(range(len(found)), [times.recipe for times in reversed(found)])
    for name in activations:
        panels[1].plot([], [], "o", color=color(name), label=paper_name(name))
    panels[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    caption = f"Times as multiples of the network's own activation's, with intervals of 95 % over rounds; {place}."
    return NamedFigure("times", "Relative times of training and inference", caption, figure)
