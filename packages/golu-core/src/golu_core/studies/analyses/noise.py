"""`golu-core analyze noise`: the test metric under noise on weights and on inputs, as in "robust to perturbation".

Noise on a weight tensor is normal, with a share of that tensor's own root mean square as its deviation; on inputs with
a share of the inputs' deviation. Draw k of a run is the same for every activation whose network has the same shapes.
"""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from golu_core.training.data.seeding import Purpose, generator
from golu_core.training.figures.drawing import new_figure
from golu_core.training.tasks.analysis_model import AnalysisModel, Batch

from ..reporting.figures import NamedFigure, plain_style
from ..reporting.looks import color
from ..reporting.metrics import metric_of, paper_name
from ..reporting.tables import Table, TableCell, TableRow
from .findings import Findings
from .trained import INTERVALS, RecipeRuns, look_into, mean_and_half_width, with_interval

SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)
"""Standard deviations of the noise, relative to those of the weights or inputs."""

Curves = Mapping[str, Sequence[float]]
"""The primary metric at each deviation, for noise on `weights` and on `inputs`."""


def noisy_weights(model: nn.Module, share: float, draw: int) -> nn.Module:
    """A copy of a model whose weights of two or more dimensions have noise; vectors stay as they are."""
    changed, random = copy.deepcopy(model), generator(draw, Purpose.PERTURB)
    with torch.no_grad():
        for parameter in changed.parameters():
            if parameter.ndim >= 2:
                noise = torch.randn(parameter.shape, generator=random).to(parameter)
                parameter.add_(share * parameter.square().mean().sqrt() * noise)
    return changed


def metric_under_noise(analyzed: AnalysisModel, draws: int) -> Curves:
    """The primary metric of a run at each share: a mean over draws.

    Args:
        draws: The number of noise draws.
    """
    name = analyzed.result.primary_metric.name

    def measured(model: nn.Module, batches: Sequence[Batch]) -> float:
        return float(analyzed.metrics(model, batches)[name])

    def under(share: float, of_inputs: bool) -> float:
        if not share:
            return measured(analyzed.model, analyzed.batches)
        values = []
        for draw in range(draws):
            if of_inputs:
                assert analyzed.noisy is not None
                random = generator(draw, Purpose.PERTURB)
                values.append(
                    measured(analyzed.model, [analyzed.noisy(batch, share, random) for batch in analyzed.batches])
                )
            else:
                values.append(measured(noisy_weights(analyzed.model, share, draw), analyzed.batches))
        return statistics.fmean(values)

    found = {"weights": [under(share, of_inputs=False) for share in SHARES]}
    if analyzed.noisy is not None:
        found["inputs"] = [under(share, of_inputs=True) for share in SHARES]
    return found


def analyze_noise(folders: Sequence[Path], samples: int, data_dir: Path | None, draws: int) -> Findings:
    """The primary metric under noise, by recipe and activation, over seeds.

    Raises:
        RequestError: The same requests as `trained.look_into` refuses.
    """
    runs = look_into(folders, samples, data_dir, "noise", lambda analyzed: metric_under_noise(analyzed, draws))
    tables = [_table(recipe, kind, draws) for recipe in runs.recipes for kind in _kinds(recipe)]
    figures = [_figure(recipe) for recipe in runs.recipes]
    numbers = runs.records(lambda seen: {"metric": seen.run.result.primary_metric.name, **_finite(seen.found)})
    cannot = ["Random noise is one kind of change: it tells you nothing about adversarial ones or about other images."]
    if any("inputs" not in seen.found for seen in runs.seen):
        cannot.append("Tokens cannot be noisy: for language models, only the weights get noise.")
    return Findings(
        "noise", tables, figures, {"shares": list(SHARES), "draws": draws, "runs": numbers}, [*cannot, runs.left_out]
    )


def _finite(curves: Curves) -> dict[str, list[float | None]]:
    return {kind: [value if math.isfinite(value) else None for value in values] for kind, values in curves.items()}


def _kinds(recipe: RecipeRuns[Curves]) -> list[str]:
    (first, *_) = recipe.by_activation.values()
    return list(first[0].found)


def _table(recipe: RecipeRuns[Curves], kind: str, draws: int) -> Table:
    (first, *_) = recipe.by_activation.values()
    metric = first[0].run.result.primary_metric.name
    title = f"{recipe.recipe}: {metric} under noise on {kind}"
    table = Table(title, ("activation",), (*(f"{100 * share:g} %" for share in SHARES), "seeds"))
    for name, several in recipe.by_activation.items():
        columns = zip(*(seen.found[kind] for seen in several), strict=True)
        cells = [with_interval(list(column)) for column in columns]
        table.rows.append(TableRow((paper_name(name),), tuple(map(TableCell, [*cells, str(len(several))]))))
    table.notes.append(
        f"Normal noise, its deviation in percent of that of the {kind}; mean of {draws} draws a run. {INTERVALS}"
    )
    return table


def _figure(recipe: RecipeRuns[Curves]) -> NamedFigure:
    kinds = _kinds(recipe)
    (first, *_) = recipe.by_activation.values()
    result = first[0].run.result
    label = metric_of(result.task, result.primary_metric.name).label
    is_share = label.endswith("(%)")
    with plain_style():
        figure = new_figure(4.2 * len(kinds), 3.4)
        panels = figure.subplots(1, len(kinds), squeeze=False)[0]
        for axes, kind in zip(panels, kinds, strict=True):
            for name, several in recipe.by_activation.items():
                columns = list(zip(*(seen.found[kind] for seen in several), strict=True))
                means, halves = zip(*(mean_and_half_width(list(column)) for column in columns), strict=True)
                percent = [100 * share for share in SHARES]
                width = 2.0 if name == "golu" else 1.3
                axes.plot(percent, means, color=color(name), linewidth=width, label=paper_name(name))
                if None not in halves:
                    low, high = ([m + sign * h for m, h in zip(means, halves, strict=True)] for sign in (-1, 1))
                    if is_share:
                        low, high = [max(value, 0.0) for value in low], [min(value, 100.0) for value in high]
                    axes.fill_between(percent, low, high, color=color(name), alpha=0.15, linewidth=0)
            axes.set(title=f"noise on {kind}", xlabel="deviation of the noise, %")
            axes.grid(True)
        panels[0].set_ylabel(label)
        panels[0].legend()
    caption = "Mean over seeds; bands are 95 % intervals over three or more of them, each by itself"
    caption += ", cut at 0 and 100 %." if is_share else "."
    return NamedFigure(f"noise-{recipe.recipe}", f"{recipe.recipe}: test metric under noise", caption, figure)
