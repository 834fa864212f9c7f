"""Draws docs/golu.png: GoLU, its gate and its slope beside ReLU, GELU, Swish and Mish.

python tools/figures.py [FILE]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from golu_core.activation import ACTIVATIONS, build_activation

SHOWN = {"relu": "#8c8c8c", "gelu": "#1f77b4", "swish": "#2ca02c", "mish": "#9467bd", "golu": "#d62728"}


def gate(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """What an activation multiplies its input by: f(x) / x; x: (N,) without 0."""
    return function(x) / x


def slope(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The derivative at each x: (N,)."""
    leaf = x.clone().requires_grad_()
    (derivative,) = torch.autograd.grad(function(leaf).sum(), leaf)
    return derivative


def draw(path: Path) -> None:
    """Writes the picture."""
    x = torch.linspace(-5, 5, 1000, dtype=torch.float64)
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    panels = figure.subplots(1, 3)
    titles = ("activation  f(x)", "gate  f(x) / x", "slope  df(x) / dx")
    for name, color in SHOWN.items():
        function = build_activation(name)
        style = {"color": color, "linewidth": 2.4 if name == "golu" else 1.4, "label": ACTIVATIONS[name].paper_name}
        curves = (function(x), gate(function, x), slope(function, x))
        for axes, values in zip(panels, curves, strict=True):
            axes.plot(x.numpy(), values.detach().numpy(), **style)
    limits = ((-3.5, 3, -0.5, 3), (-5, 5, -0.05, 1.1), (-5, 5, -0.25, 1.25))
    for axes, title, (left, right, bottom, top) in zip(panels, titles, limits, strict=True):
        axes.set(title=title, xlim=(left, right), ylim=(bottom, top), xlabel="x")
        axes.grid(alpha=0.3)
    panels[0].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent / "docs" / "golu.png")
