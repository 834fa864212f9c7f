"""`golu-core analyze gates`: activations side by side, and the densities that their gates integrate (section 2).

An activation x · g(x) has the gate g; where g grows from 0 to 1 it is a cumulative distribution, and its slope a
density: Gumbel's for GoLU, the normal one for GELU, the logistic one for Swish.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from golu_core.activation import GoLU, build_activation
from golu_core.training.figures.drawing import new_figure

from ..reporting.figures import NamedFigure, plain_style
from ..reporting.looks import color
from ..reporting.metrics import paper_name
from ..reporting.tables import Table, TableCell, TableRow
from .findings import Findings

Values = NDArray[numpy.float64]

_SHOWN = (-5.0, 5.0)
_POINTS = 1001
_NODES, _STRETCH, _REACH = 16, 0.5, 12.0
_FAMILY = (0.5, 1.0, 2.0)
_STEPS = ("relu", "leaky_relu", "prelu")


@dataclass(frozen=True)
class Shape:
    """An activation on a grid; all in float64.

    Attributes:
        x: (points,) the grid.
        value, slope, curvature: (points,) f, f' and f''.
        gate, density: (points,) f(x) / x, and its slope; None where f(0) is not 0, so that there is no gate.
    """

    x: Values
    value: Values
    slope: Values
    curvature: Values
    gate: Values | None
    density: Values | None


def shape_of(function: Callable[[Tensor], Tensor], x: Values) -> Shape:
    """Value, slope and curvature of a function by autograd, and its gate.

    Args:
        function: maps a float64 tensor of any shape to one of the same shape, element by element.
        x: (points,) the grid.
    """
    value, slope, curvature = _derivatives(function, x)
    at_zero, slope_at_zero, curvature_at_zero = (float(part[0]) for part in _derivatives(function, numpy.zeros(1)))
    if at_zero != 0:
        return Shape(x, value, slope, curvature, None, None)
    with numpy.errstate(divide="ignore", invalid="ignore"):
        # at 0 the gate is the slope and its slope half the curvature (Taylor); near 0 the quotient has few digits left
        near = numpy.abs(x) < 1e-4
        gate = numpy.where(near, slope_at_zero + curvature_at_zero / 2 * x, value / x)
        density = numpy.where(near, curvature_at_zero / 2, (slope - value / x) / x)
    return Shape(x, value, slope, curvature, gate, density)


def _derivatives(function: Callable[[Tensor], Tensor], x: Values) -> tuple[Values, Values, Values]:
    points = torch.from_numpy(x.copy()).requires_grad_()
    value = function(points)
    (slope,) = torch.autograd.grad(value.sum(), points, create_graph=True)
    curvature = torch.zeros_like(slope)
    if slope.requires_grad:
        (found,) = torch.autograd.grad(slope.sum(), points, allow_unused=True)
        curvature = curvature if found is None else found
    first, second, third = (part.detach().numpy() for part in (value, slope, curvature))
    return first, second, third


@dataclass(frozen=True)
class Moments:
    """What an activation does to normal numbers of mean 0 and variance 1.

    Attributes:
        mean, variance: The mean and the variance of its output.
        slope_mean, slope_variance: The mean and the variance of its slope.
    """

    mean: float
    variance: float
    slope_mean: float
    slope_variance: float


def moments_of(function: Callable[[Tensor], Tensor]) -> Moments:
    """Moments by Gauss-Legendre quadrature on stretches of a half, at whose ends most corners of activations are.

    Args:
        function: maps a float64 tensor of any shape to one of the same shape, element by element.
    """
    nodes, weights = numpy.polynomial.legendre.leggauss(_NODES)
    starts = numpy.arange(-_REACH, _REACH, _STRETCH)  # beyond 12 the normal density is below 1e-31
    x = (starts[:, None] + (nodes + 1) * _STRETCH / 2).ravel()
    weights = numpy.tile(weights, len(starts)) * _STRETCH / 2 * numpy.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    value, slope, _ = _derivatives(function, x)
    mean, slope_mean = float(weights @ value), float(weights @ slope)
    return Moments(mean, float(weights @ value**2) - mean**2, slope_mean, float(weights @ slope**2) - slope_mean**2)


def analyze_gates(activations: Sequence[str]) -> Findings:
    """Shapes of activations, their moments, and GoLU's families over alpha, beta and gamma.

    Args:
        activations: canonical names.
    """
    x = numpy.linspace(*_SHOWN, _POINTS)
    functions = {name: build_activation(name).double() for name in activations}
    shapes = {name: shape_of(function, x) for name, function in functions.items()}
    moments = {name: moments_of(function) for name, function in functions.items()}
    table = Table(
        "Activations, and their moments on standard normal inputs",
        ("activation",),
        ("gate at 0", "smallest value", "at", "largest slope", "mean", "variance", "mean slope", "variance of slope"),
    )
    for name, shape in shapes.items():
        lowest, found = int(shape.value.argmin()), moments[name]
        bounded = 0 < lowest < _POINTS - 1
        numbers = (
            math.nan if shape.gate is None else float(shape.gate[_POINTS // 2]),
            float(shape.value[lowest]) if bounded else math.nan,
            float(x[lowest]) if bounded else math.nan,
            float(shape.slope.max()),
            found.mean,
            found.variance,
            found.slope_mean,
            found.slope_variance,
        )
        cells = tuple(TableCell("–" if math.isnan(n) else f"{n:.4f}".replace("-", "−")) for n in numbers)
        table.rows.append(TableRow((paper_name(name),), cells))
    table.notes.append(
        f"Smallest value: the lowest point between {_SHOWN[0]:g} and {_SHOWN[1]:g}, where there is one; all in "
        f"float64, slopes by automatic differentiation, moments by quadrature with "
        f"{round(2 * _REACH / _STRETCH) * _NODES} nodes."
    )
    with plain_style():
        figures = [_shapes_figure(shapes), _densities_figure(shapes), _families_figure(x)]
    curves = {name: _numbers(shape, moments[name]) for name, shape in shapes.items()}
    return Findings(
        "gates",
        [table],
        [figure for figure in figures if figure is not None],
        {"x": x.tolist(), "activations": curves},
        ["The shape of an activation does not show how well a network trains with it: compare runs for that."],
    )


def _numbers(shape: Shape, moments: Moments) -> dict[str, object]:
    parts = ("value", "slope", "curvature", "gate", "density")
    curves = {part: None if (found := getattr(shape, part)) is None else found.tolist() for part in parts}
    return {**curves, "moments": vars(moments)}


def _shapes_figure(shapes: dict[str, Shape]) -> NamedFigure:
    figure = new_figure(8.4, 6.0)
    panels = figure.subplots(2, 2)
    for axes, (part, title) in zip(
        panels.flat,
        (("value", "f(x)"), ("gate", "gate f(x) / x"), ("slope", "slope f'(x)"), ("curvature", "curvature f''(x)")),
        strict=True,
    ):
        for name, shape in shapes.items():
            values = getattr(shape, part)
            if values is not None:
                width = 2.2 if name == "golu" else 1.3
                axes.plot(shape.x, values, color=color(name), linewidth=width, label=paper_name(name))
        axes.set(title=title, xlabel="x")
        axes.grid(True)
    panels.flat[0].set_ylim(-0.6, 3)
    panels.flat[0].set_xlim(-5, 3)
    panels.flat[0].legend()
    caption = "Automatic differentiation in float64; corners have no curvature."
    return NamedFigure("gates-shapes", "Activations side by side", caption, figure)


def _densities_figure(shapes: dict[str, Shape]) -> NamedFigure | None:
    # where the gate has a step, as ReLU's has, it has no density
    shown = {name: shape.density for name, shape in shapes.items() if shape.density is not None and name not in _STEPS}
    if not shown:
        return None
    x = next(iter(shapes.values())).x
    figure = new_figure(6.4, 3.4)
    axes = figure.add_subplot()
    for name, density in shown.items():
        axes.plot(x, density, color=color(name), label=paper_name(name))
    axes.set(xlabel="x", ylabel="slope of the gate")
    axes.grid(True)
    axes.legend()
    caption = "GoLU integrates Gumbel's density, GELU the normal one, Swish the logistic one."
    return NamedFigure("gates-densities", "Densities that the gates integrate", caption, figure)


def _families_figure(x: Values) -> NamedFigure:
    figure = new_figure(9.6, 5.2)
    panels = figure.subplots(2, 3, sharex=True)
    for column, parameter in enumerate(("alpha", "beta", "gamma")):
        for number, value in enumerate(_FAMILY):
            member = GoLU()
            setattr(member, parameter, value)
            shape = shape_of(member, x)
            style = {"color": color("golu"), "alpha": (0.4, 0.7, 1.0)[number], "label": f"{parameter} {value:g}"}
            panels[0, column].plot(x, shape.value, **style)
            panels[1, column].plot(x, shape.slope, **style)
        panels[0, column].set(title=parameter, ylim=(-0.5, 4))
        panels[0, column].legend()
        panels[1, column].set(xlabel="x")
        for axes in panels[:, column]:
            axes.grid(True)
    panels[0, 0].set_ylabel("f(x)")
    panels[1, 0].set_ylabel("slope f'(x)")
    caption = "x · alpha · exp(-beta · exp(-gamma · x)), one parameter changed at a time."
    return NamedFigure("gates-families", "GoLU over alpha, beta and gamma", caption, figure)
