"""matplotlib's figures with text that is drawn as it is: no formulas, no labels that a legend hides.

Every figure of the project comes from `new_figure`; import it inside functions, as it loads matplotlib.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from torch import Tensor

from ..messages.text_sinks import visible
from ..storage.ownership import MADE_BY

_KEPT = "\u200b"  # before a label that matplotlib would leave out of the legend; taken off before it is drawn


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure with a size in inches."""
    return _PlainFigure(figsize=(width, height), layout="constrained")


def save_png(figure: Figure, path: Path, dpi: int = 120) -> None:
    """Write a figure as PNG with this program's mark, so that the program may replace it."""
    figure.savefig(path, dpi=dpi, format="png", metadata={"Software": MADE_BY})


class TitledImage(NamedTuple):
    """An image of a grid.

    Attributes:
        image: The image, uint8 (3, H, W).
        title: One or two short lines above it.
        color: The title's color.
    """

    image: Tensor
    title: str
    color: str = "black"


def image_grid(images: Sequence[TitledImage], columns: int, title: str = "", width: float = 2.1) -> Figure:
    """Return a figure of images with titles, row by row.

    All images share one pair of axes that measure inches: axes for each image would take ten times as long to draw.

    Args:
        images: The images, at least one.
        columns: The number of images in a row.
        title: The title above all of them.
        width: The width of one image's cell, in inches.
    """
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    top, height = (0.5 if title else 0.0), width + 0.4
    figure = _PlainFigure(figsize=(max(6.0 if title else 0.0, width * columns), height * rows + top))
    whole_width, whole_height = figure.get_size_inches()
    axes = figure.add_axes((0, 0, 1, 1), axes_class=_PlainAxes)
    axes.axis("off")
    if title:
        axes.text(whole_width / 2, top / 2, title, ha="center", va="center", fontsize=12)
    first = (whole_width - width * columns) / 2
    for number, shown in enumerate(images):
        row, column = divmod(number, columns)
        center, bottom = first + (column + 0.5) * width, top + (row + 1) * height - 0.04
        _draw_titled(axes, shown, center, bottom, 0.94 * width)
    axes.set(xlim=(0, whole_width), ylim=(whole_height, 0))
    return figure


def _draw_titled(axes: Axes, shown: TitledImage, center: float, bottom: float, side: float) -> None:
    """Draw an image above a point of axes in inches, no side longer than so many, and its title above it."""
    rows, columns = shown.image.shape[1:]
    scale = side / max(rows, columns)
    left, right, upper = center - scale * columns / 2, center + scale * columns / 2, bottom - scale * rows
    pixels = shown.image.permute(1, 2, 0).numpy()
    axes.imshow(pixels, extent=(left, right, bottom, upper), aspect="auto")
    axes.text(center, upper - 0.04, shown.title, ha="center", va="bottom", fontsize=9, color=shown.color)


class _PlainAxes(Axes):
    """Axes whose legend has all labels, also those that begin with `_`, and whose ticks are named as they are."""

    def add_line(self, line: Any) -> Any:
        return super().add_line(_named(line))

    def add_collection(self, collection: Any, *arguments: Any, **settings: Any) -> Any:
        return super().add_collection(_named(collection), *arguments, **settings)

    def add_patch(self, p: Any) -> Any:
        return super().add_patch(_named(p))

    def add_artist(self, a: Any) -> Any:
        return super().add_artist(_named(a))

    def add_container(self, container: Any) -> Any:
        return super().add_container(_named(container))

    def set_xticks(self, ticks: Any, labels: Any = None, **settings: Any) -> Any:
        return super().set_xticks(ticks, **_tick_names(labels), **settings)

    def set_yticks(self, ticks: Any, labels: Any = None, **settings: Any) -> Any:
        return super().set_yticks(ticks, **_tick_names(labels), **settings)


class _PlainFigure(Figure):
    """A figure that looks through its texts before it is drawn: matplotlib would read formulas in them."""

    def add_subplot(self, *arguments: Any, **settings: Any) -> Any:
        if "projection" not in settings:
            settings.setdefault("axes_class", _PlainAxes)
        return super().add_subplot(*arguments, **settings)

    def draw(self, renderer: Any) -> None:
        numbers = {id(text) for text in _numbers(self)}
        for text in self.findobj(Text):
            if isinstance(text, Text) and id(text) not in numbers:
                text.set_parse_math(False)
                text.set_text(visible(text.get_text().removeprefix(_KEPT)))
        super().draw(renderer)


def _named(artist: Any) -> Any:
    """An artist or a container with the label that it was given, so that a legend has it."""
    label = artist.get_label()
    if isinstance(label, str) and label.startswith("_") and not _is_matplotlibs(label):
        artist.set_label(_KEPT + label)
    return artist


def _is_matplotlibs(label: str) -> bool:
    return label == "_nolegend_" or re.fullmatch(r"_(child|container)\d+", label) is not None


def _tick_names(labels: Any) -> dict[str, Any]:
    return {} if labels is None else {"labels": [visible(str(label)) for label in labels], "parse_math": False}


def _numbers(figure: Figure) -> Iterator[Artist]:
    """Texts of axes that matplotlib writes by itself, powers of ten among them."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            yield axis.offsetText
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                yield from (tick.label1, tick.label2)
