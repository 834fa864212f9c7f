"""`golu-core analyze variance`: what activations do to the spread of what goes through them (section 3).

Of activations: a photograph through one random convolution and batch norm, then each activation. Of finished runs: each
layer of the trained network on its test data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor, nn

from golu_core.activation import GoLU, build_activation
from golu_core.activation.swap.forward_calls import activation_of
from golu_core.training.data.seeding import Purpose, seed_global_generators
from golu_core.training.figures.drawing import new_figure
from golu_core.training.messages.errors import RequestError
from golu_core.training.tasks.analysis_model import AnalysisModel

from ..reporting.figures import NamedFigure, plain_style
from ..reporting.looks import color
from ..reporting.metrics import paper_name
from ..reporting.tables import Table, TableCell, TableRow
from .findings import Findings
from .trained import INTERVALS, RecipeRuns, look_into, with_interval

_FLAT = 0.01
"""A slope below which nearly nothing of a gradient passes."""

# ------------------------------------------------------------------------------------------------- of activations


def photograph() -> Tensor:
    """A photograph that comes with scikit-learn, (1, 3, 427, 640) float32 in [0, 1]."""
    from sklearn.datasets import load_sample_image

    pixels: NDArray[numpy.uint8] = load_sample_image("china.jpg")
    return torch.from_numpy(numpy.array(pixels)).permute(2, 0, 1)[None].float() / 255


def before_activations(seed: int, channels: int = 64) -> Tensor:
    """The photograph after a random 3 x 3 convolution and batch norm, all values in float64 and one dimension."""
    seed_global_generators(seed, Purpose.WEIGHTS)
    layers = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
    with torch.no_grad():
        normalized: Tensor = layers(photograph())
    return normalized.double().flatten()


def analyze_photograph(activations: Sequence[str]) -> Findings:
    """Distribution, mean and variance of each activation's output on a photograph after convolution and batch norm.

    Args:
        activations: canonical names.
    """
    x = before_activations(seed=0)
    outputs = {name: build_activation(name).double()(x).detach() for name in activations}
    table = Table(
        "A photograph after a random convolution and batch norm, then each activation",
        ("activation",),
        ("mean", "variance", "of the variance before", "at most 0.01 from 0 (%)"),
    )
    before = float(x.var())
    for name, y in outputs.items():
        near = 100 * float((y.abs() <= 0.01).double().mean())
        numbers = (f"{float(y.mean()):.4f}", f"{float(y.var()):.4f}", f"{float(y.var()) / before:.4f}", f"{near:.1f}")
        table.rows.append(TableRow((paper_name(name),), tuple(TableCell(n.replace("-", "−")) for n in numbers)))
    table.notes.append(
        f"{x.numel():,} values, of mean {abs(float(x.mean())):.4f} and variance {before:.4f} before the activation; "
        "one random convolution (seed 0) for all; its 64 channels each normalized by themselves."
    )
    with plain_style():
        figure = new_figure(6.4, 3.4)
        axes = figure.add_subplot()
        edges = numpy.linspace(-1.0, 3.0, 201)
        for name, y in outputs.items():
            counts, _ = numpy.histogram(y.numpy(), edges)
            density = counts / (y.numel() * numpy.diff(edges))
            axes.stairs(
                density, edges, color=color(name), linewidth=2.0 if name == "golu" else 1.3, label=paper_name(name)
            )
        axes.set(xlabel="output", ylabel="density", yscale="log")
        axes.grid(True)
        axes.legend()
    caption = "ReLU's zeros are its highest bar; logarithmic."
    drawn = NamedFigure("variance-photograph", "Outputs on a photograph", caption, figure)
    numbers_of = {name: {"mean": float(y.mean()), "variance": float(y.var())} for name, y in outputs.items()}
    cannot = ["A random layer is not a trained one: pass finished runs to analyze trained layers."]
    return Findings("variance", [table], [drawn], {"variance_before": before, "activations": numbers_of}, cannot)


# --------------------------------------------------------------------------------------------------------- of runs


@dataclass(frozen=True)
class LayerSpread:
    """One activation of a trained network on its test data.

    Attributes:
        module: its name.
        output_variance: The variance of all its outputs together.
        gradient_variance: The variance of the gradient by its outputs, per sample: times the batch size squared.
        flat: share of its values where its slope is below `_FLAT`.
        dead: share of its units (channels, or features of a token) whose slope is below `_FLAT` at every value.
    """

    module: str
    output_variance: float
    gradient_variance: float
    flat: float
    dead: float


class _Sums:
    """What one activation's outputs add up to over batches."""

    def __init__(self) -> None:
        self.count = self.flat = 0
        self.total = self.squares = self.gradient_squares = 0.0
        self.steepest: Tensor | None = None

    def add(self, x: Tensor, y: Tensor, activation: nn.Module) -> None:
        wide = y.detach().double()
        self.count += wide.numel()
        self.total += float(wide.sum())
        self.squares += float(wide.square().sum())
        slope = slope_of(activation, x)
        self.flat += int((slope < _FLAT).sum())
        units = 1 if x.ndim == 4 else x.ndim - 1  # channels of images, features of tokens
        steepest = slope.movedim(units, 0).flatten(1).amax(dim=1)
        self.steepest = steepest if self.steepest is None else torch.maximum(self.steepest, steepest)

    def add_gradient(self, gradient: Tensor) -> None:
        self.gradient_squares += float((len(gradient) * gradient.double()).square().sum())

    def spread(self, name: str) -> LayerSpread:
        assert self.steepest is not None
        mean = self.total / self.count
        dead = float((self.steepest < _FLAT).double().mean())
        variance = max(self.squares / self.count - mean**2, 0.0)
        return LayerSpread(name, variance, self.gradient_squares / self.count, self.flat / self.count, dead)


def slope_of(activation: nn.Module, x: Tensor) -> Tensor:
    """The absolute slope of an activation at x, any shape, element by element."""
    with torch.enable_grad():
        point = x.detach().clone().requires_grad_()
        (slope,) = torch.autograd.grad(activation(point).sum(), point)
    return slope.abs()


def layer_spreads(analyzed: AnalysisModel) -> list[LayerSpread]:
    """Each activation module of a network on its test data, in the order in which they are called first.

    Raises:
        RequestError: the network calls no activation module.
    """
    found: dict[str, _Sums] = {}
    names = {module: name for name, module in analyzed.model.named_modules() if _is_activation(module)}

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        if measuring:
            return  # the call that takes the slope
        measuring.append(True)
        sums = found.setdefault(names[module], _Sums())
        x, *gated = inputs
        sums.add(x, output if not gated else module(x), module)
        measuring.clear()
        if output.requires_grad:  # of a gated one the gradient of the activation, not of the product
            output.register_hook(lambda gradient: sums.add_gradient(gradient * gated[0] if gated else gradient))

    measuring: list[bool] = []
    with ExitStack() as hooks:
        for module in names:
            if getattr(module, "inplace", False):
                module.inplace = False  # or its input would be gone when its slope is taken
            hooks.callback(module.register_forward_hook(note).remove)
        for batch in analyzed.batches:
            analyzed.loss(analyzed.model, batch).backward()
            analyzed.model.zero_grad(set_to_none=True)
    if not found:
        raise RequestError(f"{analyzed.result.recipe} ({analyzed.result.model}) calls no activation that is a module")
    return [sums.spread(name) for name, sums in found.items()]


def _is_activation(module: nn.Module) -> bool:
    return isinstance(module, GoLU) or activation_of(module) is not None


def analyze_layers(folders: Sequence[Path], samples: int, data_dir: Path | None) -> Findings:
    """Spread of outputs and gradients of each layer of finished runs, by recipe and activation, over seeds.

    Raises:
        RequestError: The same requests as `trained.look_into` refuses, or a network calls no activation module.
    """
    runs = look_into(folders, samples, data_dir, "variance", layer_spreads)
    tables = [_table(recipe) for recipe in runs.recipes]
    figures = [_figure(recipe) for recipe in runs.recipes]
    numbers = runs.records(lambda seen: {"layers": [vars(layer) for layer in seen.found]})
    cannot = [
        "Variances of a trained network follow from its training as much as from its activation.",
        "Activations that are called as functions, not as modules, are not counted.",
    ]
    return Findings("variance", tables, figures, {"flat_below": _FLAT, "runs": numbers}, [*cannot, runs.left_out])


def _log_mean(values: Sequence[float]) -> float:
    """The geometric mean of what is positive."""
    positive = [value for value in values if value > 0]
    return math.exp(sum(map(math.log, positive)) / len(positive)) if positive else 0.0


_OVER_LAYERS: Mapping[str, tuple[str, Any]] = {
    "output_variance": ("variance of output", _log_mean),
    "gradient_variance": ("mean square of gradient", _log_mean),
    "flat": ("flat values (%)", lambda values: 100 * sum(values) / len(values)),
    "dead": ("dead units (%)", lambda values: 100 * sum(values) / len(values)),
}


def _table(recipe: RecipeRuns[list[LayerSpread]]) -> Table:
    title = f"{recipe.recipe}: outputs and gradients at its activations"
    headings = ("layers", *(heading for heading, _ in _OVER_LAYERS.values()), "seeds")
    table = Table(title, ("activation",), headings)
    for name, several in recipe.by_activation.items():
        cells = [str(len(several[0].found))]
        for part, (_, over) in _OVER_LAYERS.items():
            cells.append(with_interval([over([getattr(layer, part) for layer in seen.found]) for seen in several]))
        table.rows.append(TableRow((paper_name(name),), tuple(map(TableCell, [*cells, str(len(several))]))))
    table.notes.append(
        "Variances: geometric means over layers; shares: means over layers. Gradients are of one sample's loss. Flat: "
        f"a slope below {_FLAT:g}; dead: a channel or feature that is flat at every value of the test data. {INTERVALS}"
    )
    return table


def _figure(recipe: RecipeRuns[list[LayerSpread]]) -> NamedFigure:
    with plain_style():
        figure = new_figure(9.6, 3.2)
        panels = figure.subplots(1, 3)
        parts = ("output_variance", "gradient_variance", "flat")
        titles = ("variance of output", "mean square of gradient", "flat values, %")
        for axes, part, title in zip(panels, parts, titles, strict=True):
            for name, several in recipe.by_activation.items():
                layers = numpy.array([[getattr(layer, part) for layer in seen.found] for seen in several])
                means = 100 * layers.mean(axis=0) if part == "flat" else _log_means(layers)
                width = 2.0 if name == "golu" else 1.3
                depth = range(1, layers.shape[1] + 1)
                axes.plot(depth, means, color=color(name), linewidth=width, marker=".", label=paper_name(name))
            axes.set(title=title, xlabel="activation, from the input on")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            if part != "flat":
                axes.set_yscale("log")
            axes.grid(True)
        panels[0].legend()
    caption = "Trained networks on test data; mean over seeds."
    return NamedFigure(f"variance-{recipe.recipe}", f"{recipe.recipe}: layer by layer", caption, figure)


def _log_means(layers: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
    smallest = numpy.finfo(numpy.float64).tiny
    means: NDArray[numpy.float64] = numpy.exp(numpy.log(numpy.maximum(layers, smallest)).mean(axis=0))
    return means
