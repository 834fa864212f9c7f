"""`golu-core analyze weights`: how the learned weights of finished runs are distributed, by activation (section 3).

Weights are those of two or more dimensions: matrices, filters and embeddings. Biases, norms and activations' own
parameters are vectors, and left out.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy
from numpy.typing import NDArray

from golu_core.regular_files import check_regular
from golu_core.training.figures.drawing import new_figure
from golu_core.training.messages.errors import RequestError
from golu_core.training.runs.run_files import WEIGHTS_FILE
from golu_core.training.storage.fingerprint import file_digest

from ..reporting.collect import RunResult, collect, shown
from ..reporting.figures import NamedFigure, plain_style
from ..reporting.looks import color
from ..reporting.metrics import in_table_order, paper_name
from ..reporting.mixtures import refuse_mixed
from ..reporting.tables import Table, TableCell, TableRow
from .findings import Findings
from .trained import INTERVALS, with_interval

Values = NDArray[numpy.float64]

_PERCENTILES = (1.0, 99.0)
_BINS = 120


@dataclass(frozen=True)
class Spread:
    """How the weights of one run are distributed.

    Attributes:
        count: The number of weights.
        std: their standard deviation.
        kurtosis: their excess kurtosis, 0 for normal numbers.
        low, high: percentiles 1 and 99.
    """

    count: int
    std: float
    kurtosis: float
    low: float
    high: float


_SHOWN = {"std": "spread", "kurtosis": "excess kurtosis", "low": "percentile 1", "high": "percentile 99"}


def _weights_of(folder: Path) -> Values:
    """All weights of a finished run that are not vectors, (weights,) float64, layer after layer.

    Raises:
        RequestError: the file is missing or damaged, or has no such weights.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / WEIGHTS_FILE
    try:
        check_regular(path)
        with safe_open(str(path), framework="pt") as file:
            tensors = (file.get_tensor(name) for name in sorted(file.keys()))  # it is not a mapping
            parts = [t.double().flatten().numpy() for t in tensors if t.ndim >= 2 and t.is_floating_point()]
    except (OSError, SafetensorError) as error:
        raise RequestError(f"{path} cannot be read: {error}") from None
    if not parts:
        raise RequestError(f"{path} has no weights of two or more dimensions")
    return numpy.concatenate(parts)


def spread_of(weights: Values) -> Spread:
    """The distribution of weights, (weights,) float64, in numbers."""
    centered = weights - weights.mean()
    variance = float((centered**2).mean())
    kurtosis = float((centered**4).mean()) / variance**2 - 3 if variance else math.nan
    low, high = numpy.percentile(weights, _PERCENTILES)
    return Spread(len(weights), math.sqrt(variance), kurtosis, float(low), float(high))


def analyze_weights(folders: Sequence[Path]) -> Findings:
    """Distributions of weights by recipe and activation, over seeds.

    Raises:
        RequestError: there is no finished run, its weights are missing or damaged, or runs of a recipe have different
            settings.
    """
    collection = collect(folders)
    refuse_mixed(collection.runs)
    groups: dict[tuple[str, str], dict[str, list[RunResult]]] = defaultdict(lambda: defaultdict(list))
    for run in collection.runs:
        _check(run)
        groups[run.result.task, run.result.recipe][run.result.activation].append(run)
    tables, figures, numbers = [], [], []
    for (task, recipe), by_activation in sorted(groups.items()):
        weights = {
            name: [_weights_of(run.folder) for run in by_activation[name]] for name in in_table_order(by_activation)
        }
        spreads = {name: [spread_of(run) for run in several] for name, several in weights.items()}
        tables.append(_table(recipe, spreads))
        figures.append(_figure(recipe, weights))
        for name, several in spreads.items():
            for run, spread in zip(by_activation[name], several, strict=True):
                numbers.append(
                    {"task": task, "recipe": recipe, "activation": name, "seed": run.result.seed, **_finite(spread)}
                )
    cannot = ["A narrower distribution is not a better network: rate, decay and length of the training decide it, too."]
    if collection.left_out:
        cannot.append("Left out: " + "; ".join(map(str, collection.left_out)))
    return Findings("weights", tables, figures, {"runs": numbers}, cannot)


def _check(run: RunResult) -> None:
    """Raises RequestError where the weights are not those that result.json names; version 0.1 named none."""
    path = run.folder / WEIGHTS_FILE
    if not path.exists():
        raise RequestError(f"{shown(path)} is missing: the analysis is of weights")
    expected = run.result.files.get(WEIGHTS_FILE)
    if expected is not None and file_digest(path) != expected:
        raise RequestError(f"{shown(path)} is damaged: it does not have the checksum that result.json names")


def _finite(spread: Spread) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in vars(spread).items()}


def _table(recipe: str, spreads: dict[str, list[Spread]]) -> Table:
    table = Table(f"{recipe}: learned weights", ("activation",), ("weights", *_SHOWN.values(), "seeds"))
    for name, several in spreads.items():
        cells = [f"{several[0].count:,}"]
        cells += [with_interval([getattr(spread, part) for spread in several]) for part in _SHOWN]
        table.rows.append(TableRow((paper_name(name),), tuple(map(TableCell, [*cells, str(len(several))]))))
    table.notes.append(
        f"{INTERVALS} Weights of two or more dimensions; biases, norms and activations' own parameters are left out."
    )
    return table


def _figure(recipe: str, weights: dict[str, list[Values]]) -> NamedFigure:
    with plain_style():
        figure = new_figure(6.4, 3.4)
        axes = figure.add_subplot()
        together = {name: numpy.concatenate(several) for name, several in weights.items()}
        ends = [numpy.percentile(values, _PERCENTILES) for values in together.values()]
        edges = numpy.linspace(min(low for low, _ in ends), max(high for _, high in ends), _BINS + 1)
        for name, values in together.items():
            counts, _ = numpy.histogram(values, edges)
            density = counts / (len(values) * numpy.diff(edges))
            axes.stairs(
                density, edges, color=color(name), linewidth=2.0 if name == "golu" else 1.3, label=paper_name(name)
            )
        axes.set(xlabel="weight", ylabel="density")
        axes.grid(True)
        axes.legend()
    caption = "All seeds together, between the percentiles 1 and 99."
    return NamedFigure(f"weights-{recipe}", f"{recipe}: learned weights", caption, figure)
