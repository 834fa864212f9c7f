"""`golu-core analyze hessian`: eigenvalues, trace and spectral density of the test loss's Hessian at the final weights.

Products of the Hessian with vectors are exact (Pearlmutter, 1994: the gradient of a gradient's product with it).
The largest eigenvalues are ARPACK's, by SciPy; the trace is Hutchinson's estimate (1990), and the density comes from
stochastic Lanczos quadrature (Ghorbani, Krishnan, Xiao, 2019, arXiv 1901.10159), over the same Rademacher vectors.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch.nn.attention import SDPBackend, sdpa_kernel

from golu_core.training.data.seeding import Purpose, generator
from golu_core.training.figures.drawing import new_figure
from golu_core.training.tasks.analysis_model import AnalysisModel

from ..reporting.figures import NamedFigure, plain_style
from ..reporting.looks import color
from ..reporting.metrics import paper_name
from ..reporting.tables import Table, TableCell, TableRow
from .findings import Findings
from .trained import INTERVALS, RecipeRuns, look_into, with_interval

Values = NDArray[numpy.float64]
Product = Callable[[Values], Values]
"""A function of a vector (parameters,) that returns the Hessian's product with it."""

_POINTS = 201


@dataclass(frozen=True)
class Curvature:
    """The Hessian of the mean test loss at a run's weights.

    Attributes:
        parameters: its rows.
        top: its largest eigenvalues, the largest first; fewer than asked for where they were not found.
        lowest: the smallest of `nodes`: no eigenvalue is known to be smaller, though one may be.
        trace: Hutchinson's estimate.
        trace_error: standard error of that over the vectors; NaN for one vector.
        nodes, weights: The spectral density, (vectors * steps,): eigenvalues, and weights that sum to 1.
    """

    parameters: int
    top: tuple[float, ...]
    lowest: float
    trace: float
    trace_error: float
    nodes: tuple[float, ...]
    weights: tuple[float, ...]


def hessian_product(analyzed: AnalysisModel) -> tuple[int, Product]:
    """How many parameters are trained, and the product of the mean test loss's Hessian with a vector of them."""
    parameters = [parameter for parameter in analyzed.model.parameters() if parameter.requires_grad]
    sizes = [parameter.numel() for parameter in parameters]

    def product(vector: Values) -> Values:
        flat = torch.from_numpy(numpy.ascontiguousarray(vector)).to(parameters[0].device)
        directions = [
            part.view_as(parameter).to(parameter) for part, parameter in zip(flat.split(sizes), parameters, strict=True)
        ]
        total = torch.zeros_like(flat)
        for batch in analyzed.batches:
            with sdpa_kernel(SDPBackend.MATH):  # the other kernels of attention have no second derivative
                loss = analyzed.loss(analyzed.model, batch)
                gradients = torch.autograd.grad(loss, parameters, create_graph=True)
                along = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
                found = torch.autograd.grad(along, parameters, allow_unused=True)
            rows = [torch.zeros_like(p) if f is None else f for f, p in zip(found, parameters, strict=True)]
            total += len(batch[0]) / analyzed.samples * torch.cat([row.flatten() for row in rows]).double()
        result: Values = total.cpu().numpy()
        return result

    return sum(sizes), product


def curvature(analyzed: AnalysisModel, top: int, vectors: int, steps: int) -> Curvature:
    """Eigenvalues, trace and density of a run's Hessian.

    Args:
        top: how many of the largest eigenvalues.
        vectors: random vectors of trace and density.
        steps: The number of Lanczos steps for each vector.
    """
    count, product = hessian_product(analyzed)
    random = generator(0, Purpose.HESSIAN, "trace")
    traces, nodes, weights = [], [], []
    for _ in range(vectors):
        signs = (2 * torch.randint(0, 2, (count,), generator=random) - 1).double().numpy()
        places, shares = quadrature(product, signs, min(steps, count))
        traces.append(count * float(places @ shares))  # equals signs @ H @ signs: the first moment is exact
        nodes.extend(places.tolist())
        weights.extend((shares / vectors).tolist())
    error = statistics.stdev(traces) / math.sqrt(vectors) if vectors > 1 else math.nan
    largest = _largest(product, count, min(top, count - 1)) or (max(nodes),)
    return Curvature(count, largest, min(nodes), statistics.fmean(traces), error, tuple(nodes), tuple(weights))


def _largest(product: Product, count: int, top: int) -> tuple[float, ...]:
    """The largest eigenvalues, those that ARPACK finds in 30 restarts."""
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    operator = LinearOperator((count, count), matvec=product, dtype=numpy.float64)
    start = torch.randn(count, generator=generator(0, Purpose.HESSIAN, "largest"), dtype=torch.float64).numpy()
    try:
        found = eigsh(operator, top, which="LA", v0=start, tol=1e-3, maxiter=30, return_eigenvectors=False)
    except ArpackNoConvergence as error:
        found = error.eigenvalues
    return tuple(sorted(map(float, found), reverse=True))


def quadrature(product: Product, start: Values, steps: int) -> tuple[Values, Values]:
    """Lanczos from a vector, with full reorthogonalization: nodes and weights of its spectral measure.

    Args:
        product: The product of a symmetric matrix with a vector.
        start: (n,) not 0.
        steps: at most n.

    Returns:
        (k,) eigenvalues and (k,) weights that add up to 1; k is smaller than `steps` where the vector's space is.
    """
    basis = [start / numpy.linalg.norm(start)]
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(steps):
        turned = product(basis[-1])
        diagonal.append(float(turned @ basis[-1]))
        for known in (*basis, *basis):  # twice is enough
            turned = turned - (turned @ known) * known
        length = float(numpy.linalg.norm(turned))
        if length < 1e-8 * max(1.0, *map(abs, diagonal)) or len(diagonal) == steps:
            break
        beside.append(length)
        basis.append(turned / length)
    matrix = numpy.diag(diagonal) + numpy.diag(beside, 1) + numpy.diag(beside, -1)
    values, vectors = numpy.linalg.eigh(matrix)
    return values, vectors[0] ** 2


def density(found: Curvature, at: Values, width: float) -> Values:
    """The spectral density at some eigenvalues, (n,): each node a normal bump of the given width."""
    distance = (at[:, None] - numpy.array(found.nodes)) / width
    bumps = numpy.exp(-(distance**2) / 2) / (width * math.sqrt(2 * math.pi))
    return bumps @ numpy.array(found.weights)


def analyze_hessian(
    folders: Sequence[Path], samples: int, data_dir: Path | None, top: int, vectors: int, steps: int
) -> Findings:
    """Curvature of finished runs, by recipe and activation, over seeds.

    Raises:
        RequestError: The same requests as `trained.look_into` refuses.
    """
    runs = look_into(folders, samples, data_dir, "hessian", lambda analyzed: curvature(analyzed, top, vectors, steps))
    tables = [_table(recipe, vectors) for recipe in runs.recipes]
    figures = [_figure(recipe) for recipe in runs.recipes]
    numbers = runs.records(lambda seen: {name: _finite(value) for name, value in vars(seen.found).items()})
    cannot = [
        "Sharpness changes when weights are rescaled without changing the network (Dinh et al., 2017): a smaller "
        "eigenvalue is not a better minimum.",
        "Test loss in evaluation mode: batch norm has its running statistics.",
    ]
    settings = {"vectors": vectors, "steps": steps, "runs": numbers}
    return Findings("hessian", tables, figures, settings, [*cannot, runs.left_out])


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _table(recipe: RecipeRuns[Curvature], vectors: int) -> Table:
    title = f"{recipe.recipe}: Hessian of the test loss at the final weights"
    headings = ("parameters", "largest eigenvalue", "second", "smallest seen", "trace", "trace / parameters", "seeds")
    table = Table(title, ("activation",), headings)
    for name, several in recipe.by_activation.items():
        found = [seen.found for seen in several]
        columns = (
            [one.top[0] for one in found],
            [one.top[min(1, len(one.top) - 1)] for one in found],
            [one.lowest for one in found],
            [one.trace for one in found],
            [one.trace / one.parameters for one in found],
        )
        cells = [f"{found[0].parameters:,}", *map(with_interval, columns), str(len(several))]
        table.rows.append(TableRow((paper_name(name),), tuple(map(TableCell, cells))))
    table.notes.append(
        f"Trace: Hutchinson's estimate from {vectors} vectors a run. Smallest: of the Lanczos steps; the true one is "
        f"at most that. {INTERVALS}"
    )
    return table


def _figure(recipe: RecipeRuns[Curvature]) -> NamedFigure:
    with plain_style():
        figure = new_figure(6.4, 3.4)
        axes = figure.add_subplot()
        every = [seen.found for several in recipe.by_activation.values() for seen in several]
        low, high = min(one.lowest for one in every), max(one.top[0] for one in every)
        width = (high - low) / 60 or 1.0
        at = numpy.linspace(low - 3 * width, high + 3 * width, _POINTS)
        for name, several in recipe.by_activation.items():
            mean = numpy.mean([density(seen.found, at, width) for seen in several], axis=0)
            axes.plot(at, mean, color=color(name), linewidth=2.0 if name == "golu" else 1.3, label=paper_name(name))
        axes.set(xlabel="eigenvalue", ylabel="density", yscale="log", ylim=(1e-8, None))
        axes.grid(True)
        axes.legend()
    caption = "Stochastic Lanczos quadrature, each node a bump of a sixtieth of the range; mean over seeds."
    return NamedFigure(f"hessian-{recipe.recipe}", f"{recipe.recipe}: spectrum of the Hessian", caption, figure)
