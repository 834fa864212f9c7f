"""GoLU whose parameters are tensors on the CPU, by the kernels of `golu_cpu.c`."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import numpy
import torch
from torch import Tensor

from . import native
from .channel_layout import Layout, in_order, of_parameters
from .layout import laid_out_like
from .parameters import ZERO_DECAY_DOUBLE, ZERO_DECAY_SINGLE, gate_range

_ROW = 1 << 12
"""Elements of one sum where all elements have the same parameters."""
_ROWS = 64
"""Rows of one sum where channels lie side by side."""
_OPEN_AT = gate_range(1.0, 1.0)[1]
JOB = struct.Struct("5P3q")
"""`LearnedJob` of golu_cpu.c, as bytes: five pointers, and three numbers."""


def prepared(dtype: torch.dtype, layout: Layout, alpha: Tensor, beta: Tensor, gamma: Tensor) -> Tensor:
    """(5, channels): alpha, beta and gamma, and the x below which the gate is 0 and above which it is alpha.

    Args:
        dtype, layout: of x.
        alpha, beta, gamma: of any shape that broadcasts to x's; where beta or gamma is not positive, all is NaN.
    """
    wide = dtype is torch.float64
    closed_at = math.log(ZERO_DECAY_DOUBLE if wide else ZERO_DECAY_SINGLE)
    if layout.channels == 1:  # a few numbers are Python's, which is several times faster
        a, b, c = alpha.item(), beta.item(), gamma.item()
        numbers = [math.nan] * 5
        if b > 0 and c > 0:
            numbers = [a, b, c, (math.log(b) - closed_at) / c, (math.log(b) + _OPEN_AT) / c]
        return torch.tensor(numbers, dtype=torch.float64 if wide else torch.float32, device="cpu")
    table = numpy.empty((5, layout.channels))
    for row, parameter in zip(table, (alpha, beta, gamma), strict=False):
        known = parameter.detach()
        row[:] = (known.float() if known.dtype.itemsize < 4 else known).numpy().reshape(-1)
    table[:, ~((table[1] > 0) & (table[2] > 0))] = math.nan
    with numpy.errstate(all="ignore"):
        log_beta = numpy.log(table[1])
        table[3] = (log_beta - closed_at) / table[2]
        table[4] = (log_beta + _OPEN_AT) / table[2]
    return torch.from_numpy(table if wide else table.astype(numpy.float32))


def forward(x: Tensor, table: Tensor, layout: Layout) -> Tensor:
    """GoLU of a CPU tensor of any shape; parameters and layout as `prepared` has them."""
    ordered = in_order(x, layout)
    result = torch.empty_like(ordered)
    _run("learned_forward", layout, table, ordered, None, result, None)
    return result if ordered is x else laid_out_like(result, torch.empty_like(x))


def backward(gradient: Tensor, inputs: Sequence[Tensor], table: Tensor, layout: Layout) -> tuple[Tensor, ...]:
    """The gradients with respect to x, alpha, beta and gamma.

    Sums over many elements are taken in float64.

    Args:
        gradient: of x's shape.
        inputs: x of any shape, and the parameters in their own shapes.
        table, layout: as `prepared` has them.
    """
    x = in_order(inputs[0], layout)
    gradient = laid_out_like(gradient, x)
    result = torch.empty_like(x)
    channels = layout.channels
    sums = torch.empty(_units(x, layout), 3 * channels if _is_last(layout) else 3, dtype=table.dtype)
    _run("learned_backward", layout, table, x, gradient, result, sums)
    if channels == 1:
        of_all = sums.sum(0, dtype=torch.float64).tolist()
        of_all[1] /= -table[1].item()
        numbers = zip(of_all, inputs[1:], strict=True)
        return result, *(torch.full(p.shape, number, dtype=p.dtype, device="cpu") for number, p in numbers)
    if _is_last(layout):
        found = sums.sum(0, dtype=torch.float64).view(3, channels)
    else:
        found = sums.view(-1, channels, 3).sum(0, dtype=torch.float64).T
    return result, *of_parameters(found, table[1], inputs[1:])


def _is_last(layout: Layout) -> bool:
    return layout.channels > 1 and layout.length == 1


def _row(layout: Layout) -> int:
    """Elements of a unit whose parameters are the same."""
    return _ROW if layout.channels == 1 else layout.length


def _units(x: Tensor, layout: Layout) -> int:
    if _is_last(layout):
        return -(-(x.numel() // layout.channels) // _ROWS)
    return -(-x.numel() // _row(layout))


def _run(
    direction: str,
    layout: Layout,
    table: Tensor,
    x: Tensor,
    gradient: Tensor | None,
    result: Tensor,
    sums: Tensor | None,
) -> None:
    is_last = _is_last(layout)
    length = _ROWS if is_last else _row(layout)
    pointers = [0 if t is None else t.data_ptr() for t in (x, gradient, table, result, sums)]
    job = JOB.pack(*pointers, x.numel(), layout.channels, length)
    elements = length * layout.channels if is_last else length
    at_once = max(1, native.AT_ONCE // elements)
    native.start(f"{direction}{'_last' if is_last else ''}", x.dtype, _units(x, layout), at_once, job)
