"""`golu-core analyze ablation`: a metric over one or two settings that were varied, for each activation.

The paper varies depth against learning rate, epochs and batch size of small networks (`mlp-rates.toml` and so on), and
the learning rate of recipes (`learning-rates.toml`). Whatever two settings differ between the runs are the axes.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from golu_core.regular_files import regular_text
from golu_core.training.figures.drawing import new_figure
from golu_core.training.messages.errors import RequestError
from golu_core.training.runs.run_files import METRICS_FILE

from ..reporting.collect import RunResult, collect, shown
from ..reporting.figures import NamedFigure, plain_style
from ..reporting.looks import color
from ..reporting.metrics import in_table_order, paper_name
from ..reporting.mixtures import differing_settings, refuse_two_sources
from ..reporting.tables import Table, TableCell, TableRow
from .findings import Findings
from .trained import INTERVALS, mean_and_half_width, with_interval

_WEIGHT_NORM = "weight_norm"
"""The L2 norm of all weights in the last logged step, beside the metrics of result.json."""


@dataclass(frozen=True)
class Grid:
    """Runs of one recipe over the settings that were varied.

    Attributes:
        task, recipe: The task and the recipe of the runs.
        metric: The metric shown.
        names: The names of one or two settings.
        values: The values of each setting, in order.
        runs: the metric over seeds, by activation and place.
    """

    task: str
    recipe: str
    metric: str
    names: tuple[str, ...]
    values: tuple[tuple[Any, ...], ...]
    runs: Mapping[str, Mapping[tuple[Any, ...], Sequence[float]]]


def analyze_ablation(folders: Sequence[Path], metric: str | None) -> Findings:
    """Grids of finished runs, by recipe and activation, over seeds.

    Args:
        metric: A metric of result.json, or `weight_norm`; None for the recipe's primary metric.

    Raises:
        RequestError: no run is finished, a recipe's runs differ in no setting or in more than two, or a run has no such
            metric.
    """
    if not folders:
        raise RequestError("name the folders of finished runs")
    collection = collect(folders)
    refuse_two_sources(collection.runs)
    differing = differing_settings(collection.runs)
    groups: dict[tuple[str, str], list[RunResult]] = defaultdict(list)
    for run in collection.runs:
        groups[run.result.task, run.result.recipe].append(run)
    grids = [
        _grid(key, tuple(differing.get(key, ())), runs, metric or runs[0].result.primary_metric.name)
        for key, runs in sorted(groups.items())
    ]
    tables = [_table(grid) for grid in grids]
    with plain_style():
        figures = [_lines(grid) if len(grid.names) == 1 else _maps(grid) for grid in grids]
    numbers = [
        {
            "task": grid.task,
            "recipe": grid.recipe,
            "metric": grid.metric,
            "activation": name,
            "settings": dict(zip(grid.names, place, strict=True)),
            "values": [value if math.isfinite(value) else None for value in values],
        }
        for grid in grids
        for name, places in grid.runs.items()
        for place, values in places.items()
    ]
    cannot = [
        "The best of many cells is best by chance, too: to claim a difference, choose the settings beforehand and "
        "compare seeds with golu-core aggregate."
    ]
    if collection.left_out:
        cannot.append("Left out: " + "; ".join(map(str, collection.left_out)))
    return Findings("ablation", tables, figures, {"cells": numbers}, cannot)


def _grid(key: tuple[str, str], names: tuple[str, ...], runs: Sequence[RunResult], metric: str) -> Grid:
    task, recipe = key
    if not names or len(names) > 2:
        found = f"in {', '.join(names)}" if names else "in nothing but activation and seed"
        raise RequestError(f"{recipe}: the runs differ {found}; an ablation is over one or two settings")
    by_activation: dict[str, dict[tuple[Any, ...], list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        if run.settings is None:
            raise RequestError(f"{shown(run.folder)} has no config.json, so that its settings are not known")
        place = tuple(_plain(run.settings.get(name)) for name in names)
        by_activation[run.result.activation][place].append(_metric_of(run, metric))
    places = {place for cells in by_activation.values() for place in cells}
    values = tuple(tuple(sorted({place[n] for place in places}, key=_ordered)) for n in range(len(names)))
    return Grid(task, recipe, metric, names, values, {n: by_activation[n] for n in in_table_order(by_activation)})


def _plain(value: Any) -> Any:
    return value if isinstance(value, (int, float, str)) else json.dumps(value)


def _ordered(value: Any) -> tuple[bool, Any]:
    return isinstance(value, str), value


def _metric_of(run: RunResult, metric: str) -> float:
    if metric in run.result.metrics:
        return float(run.result.metrics[metric])
    known = ", ".join([*run.result.metrics, _WEIGHT_NORM])
    if metric != _WEIGHT_NORM:
        raise RequestError(f"{shown(run.folder)} has no metric {metric!r}; it has {known}")
    path = run.folder / METRICS_FILE
    try:
        lines = [json.loads(line) for line in regular_text(path).splitlines()]
        return float([line[_WEIGHT_NORM] for line in lines if _WEIGHT_NORM in line][-1])
    except (OSError, ValueError, IndexError) as error:
        raise RequestError(f"{shown(path)} has no norm of the weights: {error}") from None


def _cell_mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values and all(map(math.isfinite, values)) else math.nan


def _table(grid: Grid) -> Table:
    title = f"{grid.recipe}: {grid.metric} over {' and '.join(grid.names)}"
    columns = [f"{grid.names[-1]} = {value}" for value in grid.values[-1]]
    table = Table(title, ("activation", *grid.names[:-1]), tuple(columns))
    for name, cells in grid.runs.items():
        for row in grid.values[0] if len(grid.names) == 2 else (None,):
            places = [(value,) if row is None else (row, value) for value in grid.values[-1]]
            texts = [_text(cells.get(place, ())) for place in places]
            labels = (paper_name(name),) if row is None else (paper_name(name), str(row))
            table.rows.append(TableRow(labels, tuple(map(TableCell, texts))))
    counts = {len(values) for cells in grid.runs.values() for values in cells.values()}
    seeds = " to ".join(str(n) for n in sorted({min(counts), max(counts)}))
    table.notes.append(f"{seeds} seeds a cell; – where there is no run, or a failed one. {INTERVALS}")
    return table


def _text(values: Sequence[float]) -> str:
    return "–" if math.isnan(_cell_mean(values)) else with_interval(values)


def _maps(grid: Grid) -> NamedFigure:
    """One heat map an activation, all on one scale."""
    planes = {name: _plane(grid, cells) for name, cells in grid.runs.items()}
    finite = numpy.concatenate([plane[numpy.isfinite(plane)] for plane in planes.values()])
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    figure = new_figure(2.3 * len(planes) + 1.2, 2.9)
    panels = figure.subplots(1, len(planes), squeeze=False, sharey=True)[0]
    rows, columns = grid.values
    for axes, (name, plane) in zip(panels, planes.items(), strict=True):
        image = axes.imshow(plane, vmin=low, vmax=high, cmap="viridis", aspect="auto")
        axes.set(title=paper_name(name), xlabel=grid.names[1])
        axes.set_xticks(range(len(columns)), [str(value) for value in columns], rotation=45)
        axes.set_yticks(range(len(rows)), [str(value) for value in rows])
        for (row, column), value in numpy.ndenumerate(plane):
            if math.isfinite(value):
                shade = "white" if value < (low + high) / 2 else "black"
                axes.text(column, row, f"{value:.3g}", ha="center", va="center", color=shade, fontsize=7)
    panels[0].set_ylabel(grid.names[0])
    figure.colorbar(image, ax=list(panels), label=grid.metric)
    caption = "Means over seeds; one scale for all activations; empty cells have no run, or a failed one."
    return NamedFigure(f"ablation-{grid.recipe}", f"{grid.recipe}: {grid.metric}", caption, figure)


def _plane(grid: Grid, cells: Mapping[tuple[Any, ...], Sequence[float]]) -> NDArray[numpy.float64]:
    rows, columns = grid.values
    return numpy.array([[_cell_mean(cells.get((row, column), ())) for column in columns] for row in rows])


def _lines(grid: Grid) -> NamedFigure:
    figure = new_figure(5.6, 3.4)
    axes = figure.add_subplot()
    (values,) = grid.values
    for name, cells in grid.runs.items():
        means = [_cell_mean(cells.get((value,), ())) for value in values]
        halves = [
            mean_and_half_width(cells[(value,)])[1] if not math.isnan(mean) else None
            for value, mean in zip(values, means, strict=True)
        ]
        width = 2.0 if name == "golu" else 1.3
        bars = [0.0 if half is None else half for half in halves]
        axes.errorbar(
            range(len(values)),
            means,
            yerr=bars,
            color=color(name),
            linewidth=width,
            capsize=2,
            marker=".",
            label=paper_name(name),
        )
    axes.set_xticks(range(len(values)), [str(value) for value in values])
    axes.set(xlabel=grid.names[0], ylabel=grid.metric)
    axes.grid(True)
    axes.legend()
    caption = "Mean over seeds; bars are 95 % intervals over three or more of them, each by itself."
    return NamedFigure(f"ablation-{grid.recipe}", f"{grid.recipe}: {grid.metric}", caption, figure)
