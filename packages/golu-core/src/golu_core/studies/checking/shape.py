"""What a card says of an activation's shape, without a verdict: values, slopes, bounds, moments."""

from __future__ import annotations

import math

import numpy
import torch
from matplotlib.figure import Figure

from golu_core.training.figures.drawing import new_figure

from ..analyses.gates import Shape, Values, moments_of, shape_of
from ..reporting.figures import NamedFigure, plain_style
from .subject import NotApplicable, Subject

Fact = tuple[str, str]

_POINTS = 4001
_WIDE = 20.0
_SHOWN = 5.0


def facts_of(subject: Subject) -> list[Fact]:
    """Names and values; one sentence where it mixes elements."""
    try:
        subject.along(torch.zeros(1))
    except NotApplicable as reason:
        return [("shape", str(reason))]
    return [*_values(subject), *_of_shape(subject), *_moments(subject)]


def _values(subject: Subject) -> list[Fact]:
    points = torch.tensor([-math.inf, -1.0, -0.0, 0.0, 1.0, math.inf, math.nan], dtype=torch.float64)
    value, slope = subject.along(points)
    said = [f"f({_number(x)}) = {_number(y)}" for x, y in zip(points.tolist(), value.tolist(), strict=True)]
    slopes = [f"f'({_number(x)}) = {_number(y)}" for x, y in zip(points.tolist(), slope.tolist(), strict=True)]
    ends = []
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        largest = torch.finfo(dtype).max
        try:
            found, _ = subject.along(torch.tensor([-largest, largest], dtype=dtype))
        except (RuntimeError, TypeError) as error:
            ends.append(f"{_short(dtype)}: {str(error).partition(chr(10))[0][:80]}")
        else:
            ends.append(f"{_short(dtype)}: {_number(float(found[0]))} and {_number(float(found[1]))}")
    return [("values", ", ".join(said)), ("slopes", ", ".join(slopes)), ("at the ends of", "; ".join(ends))]


def _of_shape(subject: Subject) -> list[Fact]:
    x = numpy.linspace(-_WIDE, _WIDE, _POINTS)
    shape = shape_of(subject.module(torch.float64), x)
    rises, falls = (shape.slope >= 0).all(), (shape.slope <= 0).all()
    monotone = "rises" if rises else "falls" if falls else "neither rises nor falls throughout"
    lowest, highest = int(shape.value.argmin()), int(shape.value.argmax())

    def at(place: int) -> str:
        edge = place in (0, _POINTS - 1)
        return f"{_number(float(shape.value[place]))} at {_number(float(x[place]))}{' (the edge)' if edge else ''}"

    zeros = _zeros(x, shape.value)
    steepest = int(numpy.abs(shape.slope).argmax())
    return [
        (f"from {-_WIDE:g} to {_WIDE:g}", f"it {monotone}; lowest {at(lowest)}, highest {at(highest)}"),
        ("zeros", ", ".join(zeros[:6]) + (" and more" if len(zeros) > 6 else "") or "none"),
        ("steepest", f"{_number(float(shape.slope[steepest]))} at {_number(float(x[steepest]))}"),
    ]


def _zeros(x: Values, value: Values) -> list[str]:
    """Where a function on a grid is 0 or changes its sign: places, and stretches that are 0 throughout."""
    found: list[str] = []
    signs = numpy.sign(value)
    place = 0
    while place < len(x):
        end = place
        while end + 1 < len(x) and signs[place] == signs[end + 1] == 0:
            end += 1
        if signs[place] == 0:
            found.append(_number(float(x[place])) + ("" if end == place else f" to {_number(float(x[end]))}"))
        elif place + 1 < len(x) and signs[place] * signs[place + 1] < 0:
            found.append(_number(float(x[place] + x[place + 1]) / 2))
        place = end + 1
    return found


def _moments(subject: Subject) -> list[Fact]:
    found = moments_of(subject.module(torch.float64))
    second, slope_second = found.variance + found.mean**2, found.slope_variance + found.slope_mean**2
    gains = [f"{1 / math.sqrt(value):.4g}" if value > 0 else "none" for value in (second, slope_second)]
    return [
        ("normal input", f"mean {found.mean:.4f}, variance {found.variance:.4f}, mean of squares {second:.4f}"),
        ("its gradient", f"mean slope {found.slope_mean:.4f}, mean of squares {slope_second:.4f}"),
        ("gain that keeps the variance", f"{gains[0]} forward, {gains[1]} backward (as in He et al., 2015)"),
    ]


def figure_of(subject: Subject) -> NamedFigure | None:
    """Function, slope and curvature from -5 to 5; None where it mixes elements."""
    if not subject.is_elementwise:
        return None
    x = numpy.linspace(-_SHOWN, _SHOWN, 1001)
    shape = shape_of(subject.module(torch.float64), x)
    with plain_style():
        figure = _drawn(shape)
    caption = "Automatic differentiation in float64; corners have no curvature."
    return NamedFigure("shape", f"{subject.loaded.text}: function, slope and curvature", caption, figure)


def _drawn(shape: Shape) -> Figure:
    figure = new_figure(8.4, 2.8)
    for axes, (part, title) in zip(
        figure.subplots(1, 3),
        (("value", "function"), ("slope", "slope"), ("curvature", "curvature")),
        strict=True,
    ):
        axes.plot(shape.x, getattr(shape, part), color="#e4572e", linewidth=1.8)
        axes.axhline(0, color="gray", linewidth=0.6)
        axes.axvline(0, color="gray", linewidth=0.6)
        axes.set(title=title, xlabel="x")
        axes.grid(True)
    return figure


def _number(value: float) -> str:
    return f"{value:.5g}".replace("-", "−") if value or math.copysign(1, value) > 0 else "−0"


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
