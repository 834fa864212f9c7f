"""`golu-core analyze landscape`: the test loss on a plane through the final weights.

The plane is spanned by two random directions: `filter`, where each filter of a direction is as long as that of the
weights (Li et al., "Visualizing the Loss Landscape of Neural Nets", NeurIPS 2018, section 4; biases and norms stay), or
`paper`, one normal vector over all parameters. Directions and scale are the same for all activations.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy
import torch
from matplotlib.colors import LogNorm
from numpy.typing import NDArray
from torch import Tensor, nn

from golu_core.training.data.seeding import Purpose, generator
from golu_core.training.figures.drawing import new_figure
from golu_core.training.tasks.analysis_model import AnalysisModel

from ..reporting.figures import NamedFigure, plain_style
from ..reporting.metrics import paper_name
from ..reporting.page import template
from ..reporting.tables import Table, TableCell, TableRow
from .findings import Findings
from .trained import INTERVALS, RecipeRuns, look_into, with_interval

Values = NDArray[numpy.float64]
Directions = Literal["filter", "paper"]
_PAPER_SCALE = 0.1
"""Of the paper's directions: a normal vector is many times as long as the weights."""


_ROUNDING = 1e-9
"""Points of the grid lie on the edge of the ring exactly, and must not be lost to the last digit of a root."""


@dataclass(frozen=True)
class Plane:
    """The mean test loss around a run's weights.

    Attributes:
        losses: (points, points), first direction by second; not finite where the network breaks down.
        sharpness: the mean rise of the loss half way from the middle to the edge.
        roughness: root mean square of what the best paraboloid leaves of the losses within that circle, as a share of
            the root mean square of their rise above the middle.
    """

    losses: Values
    sharpness: float
    roughness: float


def direction_like(model: nn.Module, kind: Directions, draw: int) -> list[Tensor]:
    """A random direction, one tensor for each parameter.

    Args:
        kind: see this module's description.
        draw: number of the direction: the same vector for all networks of the same shapes, before it is scaled.
    """
    random = generator(draw, Purpose.DIRECTION)
    found = []
    for parameter in model.parameters():
        normal = torch.randn(parameter.shape, generator=random).to(parameter)
        if kind == "paper":
            found.append(_PAPER_SCALE * normal)
        elif parameter.ndim < 2:
            found.append(torch.zeros_like(parameter))
        else:
            dimensions = tuple(range(1, parameter.ndim))
            length = normal.square().sum(dimensions, keepdim=True).sqrt()
            wanted = parameter.detach().square().sum(dimensions, keepdim=True).sqrt()
            found.append(normal * wanted / length.clamp(min=1e-12))
    return found


def plane_of(analyzed: AnalysisModel, points: int, reach: float, kind: Directions, recompute: bool) -> Plane:
    """The losses on a grid around a run's weights, from -reach to reach in both directions.

    Args:
        points: The number of grid points along each axis, odd.
        reach: The distance from the center to the edge, as a multiple of the directions' length.
        kind: The normalization of the directions.
        recompute: Whether to recompute batch norm's statistics at each point from the test batches.
    """
    model = copy.deepcopy(analyzed.model)
    at_minimum = [parameter.detach().clone() for parameter in model.parameters()]
    first, second = (direction_like(analyzed.model, kind, draw) for draw in (0, 1))
    places = numpy.linspace(-reach, reach, points)
    losses = numpy.empty((points, points))
    with torch.no_grad():
        for row, a in enumerate(places):
            for column, b in enumerate(places):
                for parameter, start, u, v in zip(model.parameters(), at_minimum, first, second, strict=True):
                    parameter.copy_(start + a * u + b * v)
                if recompute:
                    recompute_batch_norm(model, analyzed)
                losses[row, column] = analyzed.mean_loss(model)
    sharpness, roughness = shape_numbers(losses)
    return Plane(losses, sharpness, roughness)


def recompute_batch_norm(model: nn.Module, analyzed: AnalysisModel) -> None:
    """Takes the running statistics of batch norm from the test batches, each counted alike."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
        norm.train()
    for batch in analyzed.batches:
        analyzed.loss(model, batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def shape_numbers(losses: Values) -> tuple[float, float]:
    """Sharpness and roughness of a plane, (points, points); infinite where a loss within the circle is.

    Sharpness is in units of the loss. Roughness is 0 for a paraboloid, and at most 1.
    """
    points = len(losses)
    place = numpy.linspace(-1, 1, points)
    x, y = numpy.meshgrid(place, place, indexing="ij")
    radius = numpy.hypot(x, y)
    step = 1.0 / (points - 1) + _ROUNDING
    ring = numpy.abs(radius - 0.5) <= step
    inside = radius <= 0.5 + step
    middle = losses[points // 2, points // 2]
    if not numpy.isfinite(losses[inside]).all():
        return math.inf, math.inf
    sharpness = float((losses[ring] - middle).mean())
    rise = losses[inside] - middle
    columns = numpy.stack([numpy.ones_like(rise), x[inside], y[inside], *_squares(x[inside], y[inside])], axis=1)
    left = rise - columns @ numpy.linalg.lstsq(columns, rise, rcond=None)[0]
    size = float(numpy.sqrt((rise**2).mean()))
    return sharpness, float(numpy.sqrt((left**2).mean())) / size if size else 0.0


def _squares(x: Values, y: Values) -> list[Values]:
    return [x * x, x * y, y * y]


def analyze_landscape(
    folders: Sequence[Path],
    samples: int,
    data_dir: Path | None,
    *,
    points: int,
    reach: float,
    kind: Directions,
    recompute: bool,
) -> Findings:
    """Planes of finished runs, by recipe and activation, over seeds.

    Raises:
        RequestError: The same requests as `trained.look_into` refuses.
    """
    runs = look_into(
        folders, samples, data_dir, "landscape", lambda analyzed: plane_of(analyzed, points, reach, kind, recompute)
    )
    tables = [_table(recipe, reach, kind, recompute) for recipe in runs.recipes]
    figures = [draw(recipe, reach) for recipe in runs.recipes for draw in (_contours, _surfaces)]
    numbers = runs.records(
        lambda seen: {
            "sharpness": _finite(seen.found.sharpness),
            "roughness": _finite(seen.found.roughness),
            "losses": [[_finite(loss) for loss in row] for row in seen.found.losses.tolist()],
        }
    )
    cannot = [
        "These are two directions of many thousand: a flat plane tells you little about the others.",
        "With the paper's directions, a network with larger weights looks flatter; filter directions correct for that."
        if kind == "paper"
        else "",
    ]
    settings = {"reach": reach, "directions": kind, "recomputed_batch_norm": recompute, "runs": numbers}
    pages = {"landscape": _page(runs.recipes, reach)}
    return Findings("landscape", tables, figures, settings, [*filter(None, cannot), runs.left_out], pages)


def _page(recipes: Sequence[RecipeRuns[Plane]], reach: float) -> str:
    """Surfaces that a reader turns, in one file that needs no network."""
    shown = []
    for recipe in recipes:
        planes = _first_planes(recipe)
        low, high = (float(function(list(planes.values()))) for function in (numpy.min, numpy.max))
        rounded = [(paper_name(name), numpy.round(plane, 5).tolist()) for name, plane in planes.items()]
        shown.append({"name": recipe.recipe, "low": low, "high": high, "planes": rounded})
    return template("landscape.html.jinja").render(recipes=shown, reach=f"{reach:g}")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _table(recipe: RecipeRuns[Plane], reach: float, kind: Directions, recompute: bool) -> Table:
    title = f"{recipe.recipe}: test loss around the final weights"
    table = Table(title, ("activation",), ("loss there", "sharpness", "roughness", "seeds"))
    for name, several in recipe.by_activation.items():
        planes = [seen.found for seen in several]
        middles = [plane.losses[len(plane.losses) // 2, len(plane.losses) // 2] for plane in planes]
        columns = (middles, [plane.sharpness for plane in planes], [plane.roughness for plane in planes])
        broken = sum(not math.isfinite(plane.sharpness) for plane in planes)
        cells = ["–" if broken else with_interval(list(map(float, column))) for column in columns]
        table.rows.append(TableRow((paper_name(name),), tuple(map(TableCell, [*cells, str(len(several))]))))
    norms = "recomputed at each point" if recompute else "as trained"
    table.notes.append(
        f"{kind} directions, the same for all; from −{reach:g} to {reach:g} of their lengths; batch norm's statistics "
        f"{norms}. Sharpness: mean rise half way to the edge. Roughness: the residual of a paraboloid fit in that "
        f"circle, as a share of the rise. {INTERVALS}"
    )
    return table


def _first_planes(recipe: RecipeRuns[Plane]) -> dict[str, Values]:
    """The plane of each activation's first seed, cut at the largest loss that most of them reach, for one scale."""
    planes = {name: several[0].found.losses for name, several in recipe.by_activation.items()}
    finite = numpy.concatenate([plane[numpy.isfinite(plane)] for plane in planes.values()])
    cut = float(numpy.percentile(finite, 95)) if len(finite) else 1.0
    return {name: numpy.nan_to_num(plane, nan=cut, posinf=cut).clip(max=cut) for name, plane in planes.items()}


def _contours(recipe: RecipeRuns[Plane], reach: float) -> NamedFigure:
    planes = _first_planes(recipe)
    low, high = (function(list(planes.values())) for function in (numpy.min, numpy.max))
    spaced = numpy.geomspace if 0 < 50 * low < high else numpy.linspace  # a bowl that is steep everywhere, or not
    levels = spaced(low, max(high, low + 1e-9), 16)
    norm = LogNorm(low, high) if spaced is numpy.geomspace else None
    with plain_style():
        figure = new_figure(2.5 * len(planes) + 0.9, 2.8)
        panels = figure.subplots(1, len(planes), squeeze=False, sharey=True)[0]
        for axes, (name, plane) in zip(panels, planes.items(), strict=True):
            place = numpy.linspace(-reach, reach, len(plane))
            filled = axes.contourf(place, place, plane.T, levels=levels, cmap="viridis", norm=norm)
            axes.contour(place, place, plane.T, levels=levels, colors="black", linewidths=0.4)
            axes.set(title=paper_name(name), xlabel="first direction", aspect="equal")
        panels[0].set_ylabel("second direction")
        figure.colorbar(filled, ax=list(panels), label="test loss", format="%.3g")
    caption = "First seed of each; one scale, logarithmic where it is wide, cut at the 95th percentile of all losses."
    return NamedFigure(f"landscape-{recipe.recipe}", f"{recipe.recipe}: test loss on a plane", caption, figure)


def _surfaces(recipe: RecipeRuns[Plane], reach: float) -> NamedFigure:
    planes = _first_planes(recipe)
    low, high = (function(list(planes.values())) for function in (numpy.min, numpy.max))
    with plain_style():
        figure = new_figure(3.0 * len(planes), 3.2)
        for number, (name, plane) in enumerate(planes.items()):
            axes = figure.add_subplot(1, len(planes), number + 1, projection="3d")
            place = numpy.linspace(-reach, reach, len(plane))
            x, y = numpy.meshgrid(place, place, indexing="ij")
            axes.plot_surface(x, y, plane, cmap="viridis", vmin=low, vmax=high, linewidth=0)
            axes.set(title=paper_name(name), zlim=(low, max(high, low + 1e-9)))
    caption = "First seed of each; one scale."
    return NamedFigure(f"landscape-{recipe.recipe}-surface", f"{recipe.recipe}: as surfaces", caption, figure)
