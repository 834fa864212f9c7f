"""`golu-core analyze spectrum`: how large random matrices are after an activation, and after its slope (appendix).

A layer's Jacobian is a matrix of weights times the slopes of its activation; the largest modulus of an eigenvalue says
how much what goes through it again and again would grow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from golu_core.activation import build_activation
from golu_core.training.figures.drawing import new_figure

from ..reporting.figures import NamedFigure, plain_style
from ..reporting.metrics import paper_name
from ..reporting.tables import Table, TableCell, TableRow
from .findings import Findings

Values = NDArray[numpy.float64]

MEANS = (-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)
DEVIATIONS = (0.5, 1.0, 1.5, 2.0, 2.5)
_SEED = 0


def largest_modulus(matrix: Values) -> float:
    """The largest modulus of an eigenvalue of a square matrix, (n, n) float64."""
    return float(numpy.abs(numpy.linalg.eigvals(matrix)).max())


def moduli(function: Callable[[Tensor], Tensor], size: int) -> tuple[Values, Values]:
    """Largest moduli over means and deviations, of the function of a random matrix and of its slopes.

    Args:
        function: maps a float64 tensor of any shape to one of the same shape, element by element.
        size: rows and columns of the matrix; for all functions it is the same random matrix.

    Returns:
        Two arrays of (means, deviations).
    """
    normal = torch.from_numpy(numpy.random.default_rng(_SEED).standard_normal((size, size)))
    found = numpy.zeros((2, len(MEANS), len(DEVIATIONS)))
    for row, mean in enumerate(MEANS):
        for column, deviation in enumerate(DEVIATIONS):
            points = (mean + deviation * normal).requires_grad_()
            value = function(points)
            (slope,) = torch.autograd.grad(value.sum(), points)
            found[:, row, column] = [largest_modulus(part.detach().numpy()) for part in (value, slope)]
    return found[0], found[1]


def analyze_spectrum(activations: Sequence[str], size: int) -> Findings:
    """Largest moduli of eigenvalues by activation, mean and deviation.

    Args:
        activations: canonical names.
        size: The number of rows and columns of the random matrix; the paper uses 1,000.
    """
    found = {name: moduli(build_activation(name).double(), size) for name in activations}
    table = Table(
        f"Largest modulus of an eigenvalue of a random {size} x {size} matrix, over the root of {size}",
        ("activation",),
        ("values: mean 0, deviation 1", "smallest", "largest", "slopes: mean 0, deviation 1", "smallest", "largest"),
    )
    middle = MEANS.index(0.0), DEVIATIONS.index(1.0)
    for name, both in found.items():
        cells = [number for part in both for number in (part[middle], part.min(), part.max())]
        texts = (TableCell(f"{number / math.sqrt(size):.3f}") for number in cells)
        table.rows.append(TableRow((paper_name(name),), tuple(texts)))
    table.notes.append(
        f"Numbers of means from {MEANS[0]:g} to {MEANS[-1]:g} and deviations from {DEVIATIONS[0]:g} to "
        f"{DEVIATIONS[-1]:g}, one random matrix for all. Independent numbers of mean 0 and deviation 1 have about 1 "
        f"(circular law); a mean of m adds m times the root of {size}."
    )
    with plain_style():
        figures = [
            _heat_maps({name: both[part] for name, both in found.items()}, what)
            for part, what in enumerate(("values", "slopes"))
        ]
    numbers = {name: {"values": both[0].tolist(), "slopes": both[1].tolist()} for name, both in found.items()}
    return Findings(
        "spectrum",
        [table],
        figures,
        {"size": size, "means": list(MEANS), "deviations": list(DEVIATIONS), "activations": numbers},
        ["Weights of a network are not independent, and its layers are normalized: this is of the function alone."],
    )


def _heat_maps(found: dict[str, Values], what: str) -> NamedFigure:
    """One map for each activation, all on one scale."""
    figure = new_figure(2.1 * len(found) + 0.8, 3.2)
    panels = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
    largest = max(float(values.max()) for values in found.values())
    for axes, (name, values) in zip(panels, found.items(), strict=True):
        image = axes.imshow(values, origin="lower", aspect="auto", vmin=0, vmax=largest)
        axes.set(title=paper_name(name), xlabel="deviation")
        axes.set_xticks(range(len(DEVIATIONS)), [f"{value:g}" for value in DEVIATIONS])
        axes.set_yticks(range(len(MEANS)), [f"{value:g}" for value in MEANS])
    panels[0].set_ylabel("mean")
    figure.colorbar(image, ax=list(panels), label="largest modulus")
    caption = "All activations on one scale."
    return NamedFigure(f"spectrum-{what}", f"Largest modulus of an eigenvalue, of {what}", caption, figure)
