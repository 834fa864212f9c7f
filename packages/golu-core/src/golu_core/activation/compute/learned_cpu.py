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
"""Elements of one sum, at most, where a row's elements have the same parameters: a sum is in x's precision."""
_ROWS = 64
"""Rows of one sum where channels lie side by side."""
_OPEN_AT = gate_range(1.0, 1.0)[1]
JOB = struct.Struct("5P4q")
"""`LearnedJob` of golu_cpu.c, as bytes: five pointers, and four numbers."""


def prepared(dtype: torch.dtype, layout: Layout, alpha: Tensor, beta: Tensor, gamma: Tensor) -> Tensor:
    """(5, channels): alpha, beta and gamma, and the x below which the gate is 0 and above which it is alpha.

    Args:
        dtype, layout: The data type and the layout of x.
        alpha, beta, gamma: Tensors of any shape that broadcasts to x's. If one is not positive and finite, all is NaN.
    """
    wide = dtype is torch.float64
    computed = torch.float64 if wide else torch.float32
    known = [parameter.detach().to(computed) for parameter in (alpha, beta, gamma)]
    closed_at = math.log(ZERO_DECAY_DOUBLE if wide else ZERO_DECAY_SINGLE)
    if layout.channels == 1:  # a few numbers are Python's, which is several times faster
        a, b, c = (parameter.item() for parameter in known)
        numbers = [math.nan] * 5
        if min(a, b, c) > 0 and max(a, b, c) < math.inf:
            numbers = [a, b, c, (math.log(b) - closed_at) / c, (math.log(b) + _OPEN_AT) / c]
        return torch.tensor(numbers, dtype=computed, device="cpu")
    table = numpy.empty((5, layout.channels))
    for row, parameter in zip(table, known, strict=False):
        row[:] = parameter.numpy().reshape(-1)
    table[:, ~((table[:3] > 0) & (table[:3] < math.inf)).all(0)] = math.nan
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
        gradient: The gradient of the output, of x's shape.
        inputs: x of any shape, and the parameters in their own shapes.
        table, layout: The values that `prepared` returned.
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
        found = sums.view(-1, channels, _pieces(layout), 3).sum((0, 2), dtype=torch.float64).T
    return result, *of_parameters(found, table[1], inputs[1:])


def _is_last(layout: Layout) -> bool:
    return layout.channels > 1 and layout.length == 1


def _pieces(layout: Layout) -> int:
    """Units that a row is cut into, of elements that have the same parameters."""
    return -(-layout.length // _ROW)


def _units(x: Tensor, layout: Layout) -> int:
    if _is_last(layout):
        return -(-(x.numel() // layout.channels) // _ROWS)
    return x.numel() // layout.length * _pieces(layout)


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
    length, most = (_ROWS, _ROWS) if is_last else (layout.length, min(_ROW, layout.length))
    pointers = [0 if t is None else t.data_ptr() for t in (x, gradient, table, result, sums)]
    job = JOB.pack(*pointers, x.numel(), layout.channels, length, most)
    elements = most * layout.channels if is_last else most
    at_once = max(1, native.AT_ONCE // elements)
    native.start(f"{direction}{'_last' if is_last else ''}", x.dtype, _units(x, layout), at_once, job)
