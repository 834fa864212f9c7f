"""The per-class output of `evaluate --details`: CSV tables, and pictures of confusions and precision-recall curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy
from numpy.typing import NDArray

from ..messages.text_sinks import csv_text

_NAMED_CLASSES = 60  # more names would not be legible
_COUNTED_CLASSES = 25  # as would more counts
_CURVES = 8
_POINTS = 200  # of a curve, in the CSV


class Curve(NamedTuple):
    """The precision-recall curve of one class.

    Attributes:
        recall: The recall, increasing (points,).
        precision: The precision (points,).
        scores: The score threshold (points,); NaN if unknown.
        average: Average precision, `widths @ precision`.
        widths: The share of the recall axis over which each precision is averaged (points,); the sum is 1.
    """

    recall: NDArray[numpy.float64]
    precision: NDArray[numpy.float64]
    scores: NDArray[numpy.float64]
    average: float
    widths: NDArray[numpy.float64]


def write_table(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write records as CSV, with numbers in six digits."""
    rows = [
        {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in record.items()}
        for record in records
    ]
    path.write_text(csv_text(rows), encoding="utf-8")


def write_confusion(folder: Path, counts: NDArray[Any], names: Sequence[str], what: str) -> None:
    """Write `confusion.csv`, `confusions.csv` with the most frequent confusions first, and `confusion.png`.

    Args:
        folder: The folder to write the files to.
        counts: The confusion matrix (classes, classes), with true classes in rows and predicted classes in columns.
        names: The names of the classes.
        what: The unit that is counted, such as `images`.
    """
    matrix = [
        {"right class": name, **{f"chosen {other}": _plain(n) for other, n in zip(names, row, strict=True)}}
        for name, row in zip(names, counts.tolist(), strict=True)
    ]
    write_table(folder / "confusion.csv", matrix)
    totals = counts.sum(axis=1)
    wrong = [
        {
            "right class": names[right],
            "chosen class": names[chosen],
            what: _plain(counts[right, chosen].item()),
            "share of the right class (%)": 100 * float(counts[right, chosen]) / float(totals[right]),
        }
        for right, chosen in zip(*numpy.nonzero(counts), strict=True)
        if right != chosen
    ]
    if wrong:
        write_table(folder / "confusions.csv", sorted(wrong, key=lambda row: -float(row[what])))
    _draw_confusion(folder / "confusion.png", counts, names, what)


def _plain(count: float) -> int | float:
    return int(count) if float(count).is_integer() else count


def _draw_confusion(path: Path, counts: NDArray[Any], names: Sequence[str], what: str) -> None:
    from .drawing import new_figure, save_png

    shares = counts / numpy.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = max(4.0, min(14.0, 1.5 + 0.35 * len(names)))
    figure = new_figure(side + 1, side)
    axes = figure.add_subplot()
    image = axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(image, ax=axes, label="share of the right class (%)", shrink=0.8)
    axes.set(xlabel="chosen class", ylabel="right class", title=f"Confusions, {what}")
    if len(names) <= _NAMED_CLASSES:
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
        axes.set_yticks(range(len(names)), names, fontsize=8)
    if len(names) <= _COUNTED_CLASSES:
        for row, column in zip(*numpy.nonzero(counts), strict=True):
            dark = shares[row, column] > 0.5
            axes.text(
                column,
                row,
                f"{counts[row, column]:,.0f}",
                ha="center",
                va="center",
                fontsize=7,
                color="white" if dark else "black",
            )
    save_png(figure, path)


def write_curves(folder: Path, curves: Mapping[str, Curve], title: str) -> None:
    """Write `precision-recall.csv` for all classes, and `precision-recall.png` for the weakest ones and the mean.

    Args:
        folder: The folder to write the files to.
        curves: The curves by class name.
        title: The title of the picture.
    """
    records = [
        {"class": name, "recall": float(recall), "precision": float(precision), "lowest score": _known(score)}
        for name, curve in curves.items()
        for recall, precision, score in _thinned(curve)
    ]
    write_table(folder / "precision-recall.csv", records)

    from .drawing import new_figure, save_png

    figure = new_figure(7.5, 5)
    axes = figure.add_subplot()
    ordered = sorted(curves.items(), key=lambda item: item[1].average)
    for name, curve in ordered[:_CURVES]:
        axes.plot(*_steps(curve), label=f"{name}: {100 * curve.average:.1f} %", alpha=0.8)
    mean = _mean_curve(list(curves.values()))
    label = f"mean of {len(curves)} classes: {100 * mean.average:.1f} %"
    axes.plot(*_steps(mean), color="black", linewidth=2, label=label)
    shown = "all classes" if len(ordered) <= _CURVES else f"the {_CURVES} classes with the lowest average precision"
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02), title=f"{title}: {shown}")
    axes.legend(fontsize=8, title="average precision")
    save_png(figure, folder / "precision-recall.png")


def _known(score: float) -> float | str:
    return "" if numpy.isnan(score) else float(score)


def _thinned(curve: Curve) -> list[tuple[float, float, float]]:
    step = max(1, -(-len(curve.recall) // _POINTS))
    return list(zip(curve.recall[::step], curve.precision[::step], curve.scores[::step], strict=True))


def _steps(curve: Curve) -> tuple[NDArray[Any], NDArray[Any]]:
    """The corners of a curve as it is averaged: the area under the line through them is the average precision."""
    edges = _edges(curve)
    return numpy.repeat(edges, 2)[1:-1], numpy.repeat(curve.precision, 2)


def _edges(curve: Curve) -> NDArray[numpy.float64]:
    """Where each precision begins on the recall axis, and where the last one ends."""
    edges: NDArray[numpy.float64] = numpy.concatenate([[0.0], numpy.cumsum(curve.widths)])
    return edges


def _mean_curve(curves: Sequence[Curve]) -> Curve:
    """Return the mean of curves in 101 steps, the number of COCO's; its average is the mean of theirs."""
    edges = numpy.linspace(0, 1, 102)
    widths = numpy.diff(edges)
    areas = [
        numpy.interp(edges, _edges(curve), numpy.concatenate([[0.0], numpy.cumsum(curve.widths * curve.precision)]))
        for curve in curves
    ]
    precision = numpy.diff(numpy.mean(areas, axis=0)) / widths
    unknown = numpy.full(len(widths), numpy.nan)
    average = sum(curve.average for curve in curves) / len(curves)
    return Curve(edges[1:], precision, unknown, average, widths)
