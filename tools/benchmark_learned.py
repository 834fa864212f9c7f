"""GoLU with learned parameters, forward and backward: its kernels beside the expression, fixed parameters and PReLU."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from golu_core import golu
from golu_core.activation.expression import golu_learned_expression
from measuring import Row, interleaved

_SHAPES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "64 x 64, one of each": ((64, 64), ()),
    "64 images of 64 x 20 x 20, one of each": ((64, 64, 20, 20), ()),
    "64 images of 64 x 20 x 20, each channel": ((64, 64, 20, 20), (64, 1, 1)),
    "16 x 128 x 512 features, each channel": ((16, 128, 512), (512,)),
}


def learned_rows(threads: list[int]) -> list[Row]:
    """Median microseconds of a forward and backward pass in float32, by shape and number of threads."""
    rows: list[Row] = []
    for count in threads:
        torch.set_num_threads(count)
        for name, (shape, own) in _SHAPES.items():
            rows.append({"threads": count, "x": name, **_microseconds(shape, own)})
    return rows


def _microseconds(shape: tuple[int, ...], own: tuple[int, ...]) -> dict[str, float]:
    x, gradient = torch.randn(shape, requires_grad=True), torch.randn(shape)
    learned = [torch.ones(own, requires_grad=True) for _ in range(3)]
    prelu = nn.PReLU()

    def both(function: Callable[[], Tensor], inputs: list[Tensor]) -> Callable[[], None]:
        def run() -> None:
            torch.autograd.grad(function(), inputs, gradient)

        return run

    times = interleaved(
        {
            "silu": both(lambda: F.silu(x), [x]),
            "prelu": both(lambda: prelu(x), [x, prelu.weight]),
            "golu": both(lambda: golu(x), [x]),
            "learned": both(lambda: golu(x, *learned), [x, *learned]),
            "learned, as expression": both(lambda: golu_learned_expression(x, *learned), [x, *learned]),
        },
        25,
        5,
    )
    found = {name: 1e6 * statistics.median(values) for name, values in times.items()}
    return {**found, "learned / silu": found["learned"] / found["silu"]}
