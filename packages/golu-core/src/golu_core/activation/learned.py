"""GoLU whose parameters are tensors, by the compiled CPU kernels: one pass each way, which keeps x and the parameters.

dy/dalpha = x * exp(-d)       dy/dbeta = -y * d / beta       dy/dgamma = x * y * d       d = beta * exp(-gamma * x)
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy
import torch
from torch import Tensor

from . import native
from .expression import golu_learned_expression
from .layout import KERNEL_DTYPES, dense, laid_out_like
from .parameters import ZERO_DECAY_DOUBLE, ZERO_DECAY_SINGLE, gate_range
from .plain import is_plain, nobody_watches

_ROW = 1 << 12
"""Elements of one sum where all elements have the same parameters."""
_ROWS = 64
"""Rows of one sum where channels lie side by side."""
_OPEN_AT = gate_range(1.0, 1.0)[1]


class _Job(ctypes.Structure):
    """`LearnedJob` of golu_cpu.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "gradient", "parameters", "result", "sums")),
        *((name, ctypes.c_int64) for name in ("count", "channels", "length")),
    )


class Layout(NamedTuple):
    """How the channels of a tensor lie in memory.

    Attributes:
        channels: how many there are.
        length: elements of a channel side by side; 1 where the channels are.
    """

    channels: int
    length: int


def layout_of(x: Tensor, parameters: list[Tensor]) -> Layout | None:
    """The layout of x's channels, of which each has its parameters; None where the kernels do not have it.

    Args:
        x: a CPU tensor of any shape.
        parameters: alpha, beta and gamma, of shapes that x's takes by broadcasting.
    """
    if native.kernels() is None or not x.is_cpu or x.dtype not in KERNEL_DTYPES:
        return None
    if not all(p.is_cpu and p.is_floating_point() and p.numel() for p in parameters):
        return None
    sizes = [1] * x.ndim
    for parameter in parameters:
        if parameter.ndim > x.ndim:
            return None
        for dimension, size in enumerate(parameter.shape, x.ndim - parameter.ndim):
            if size not in (1, x.shape[dimension]):
                return None
            sizes[dimension] = max(size, sizes[dimension])
    own = [dimension for dimension, size in enumerate(sizes) if size > 1]
    if not own:
        return Layout(1, _ROW)
    if len(own) > 1:
        return None
    (dimension,) = own
    if dimension == 1 and _is_channels_last(x):
        return Layout(x.shape[1], 1)
    return Layout(x.shape[dimension], x.shape[dimension + 1 :].numel())


def _is_channels_last(x: Tensor) -> bool:
    return not x.is_contiguous() and (
        (x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last))
        or (x.ndim == 5 and x.is_contiguous(memory_format=torch.channels_last_3d))
    )


def golu_learned(x: Tensor, alpha: Tensor, beta: Tensor, gamma: Tensor, layout: Layout) -> Tensor:
    """GoLU of a CPU tensor of any shape, with parameters that are tensors, and are differentiated like x.

    Args:
        x: plain memory of one of `KERNEL_DTYPES`.
        alpha, beta, gamma: positive; where beta or gamma is not, the result is NaN.
        layout: by `layout_of`.
    """
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, alpha, beta, gamma)):
        y: Tensor = _LearnedGoLU.apply(x, alpha, beta, gamma, layout)
        return y
    return _forward(x, _table(x.dtype, layout, alpha, beta, gamma), layout)


class _LearnedGoLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor, beta: Tensor, gamma: Tensor, layout: Layout) -> Tensor:
        ctx.save_for_backward(x, alpha, beta, gamma)
        ctx.layout, ctx.table = layout, _table(x.dtype, layout, alpha, beta, gamma)
        return _forward(x, ctx.table, layout)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        if torch.is_grad_enabled() or not (all(map(is_plain, (gradient, *inputs))) and nobody_watches()):
            return (*_by_expression(inputs, gradient, ctx.needs_input_grad), None)
        return (*_backward(gradient, inputs, ctx.table, ctx.layout), None)


def _by_expression(inputs: Sequence[Tensor], gradient: Tensor, needed: Sequence[bool]) -> tuple[Tensor | None, ...]:
    """Gradients that can be differentiated again."""
    with torch.enable_grad():
        y = golu_learned_expression(*inputs)
        wanted = [tensor for tensor, is_needed in zip(inputs, needed, strict=False) if is_needed]
        found = iter(torch.autograd.grad(y, wanted, gradient, create_graph=True))
    return tuple(next(found) if is_needed else None for is_needed in needed[: len(inputs)])


def _table(dtype: torch.dtype, layout: Layout, alpha: Tensor, beta: Tensor, gamma: Tensor) -> Tensor:
    """(5, channels): alpha, beta and gamma, and the x below which the gate is 0 and above which it is alpha."""
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


def _forward(x: Tensor, table: Tensor, layout: Layout) -> Tensor:
    ordered = _in_order(x, layout)
    result = torch.empty_like(ordered)
    _run("learned_forward", layout, table, ordered, None, result, None)
    return result if ordered is x else laid_out_like(result, torch.empty_like(x))


def _backward(gradient: Tensor, inputs: Sequence[Tensor], table: Tensor, layout: Layout) -> tuple[Tensor, ...]:
    """The gradients with respect to x, alpha, beta and gamma; sums over many elements are taken in float64."""
    x = _in_order(inputs[0], layout)
    gradient = laid_out_like(gradient, x)
    result = torch.empty_like(x)
    channels = layout.channels
    sums = torch.empty(_units(x, layout), 3 * channels if layout.length == 1 else 3, dtype=table.dtype)
    _run("learned_backward", layout, table, x, gradient, result, sums)
    if channels == 1:
        of_all = sums.sum(0, dtype=torch.float64).tolist()
        of_all[1] /= -table[1].item()
        numbers = zip(of_all, inputs[1:], strict=True)
        return result, *(torch.full(p.shape, number, dtype=p.dtype, device="cpu") for number, p in numbers)
    if layout.length == 1:
        found = sums.sum(0, dtype=torch.float64).view(3, channels)
    else:
        found = sums.view(-1, channels, 3).sum(0, dtype=torch.float64).T
    of_alpha, of_beta, of_gamma = found
    own = of_alpha, of_beta / -table[1].double(), of_gamma
    return result, *(_of_one(sum_of, p, layout) for sum_of, p in zip(own, inputs[1:], strict=True))


def _of_one(found: Tensor, parameter: Tensor, layout: Layout) -> Tensor:
    if parameter.numel() == layout.channels:
        return found.view(parameter.shape).to(parameter.dtype)
    return found.sum().view(parameter.shape).to(parameter.dtype)  # one parameter for all channels


def _in_order(x: Tensor, layout: Layout) -> Tensor:
    """x in memory as its layout says, copied if it is not."""
    if layout.channels == 1:
        return dense(x)
    return x if layout.length == 1 and _is_channels_last(x) else x.contiguous()


def _units(x: Tensor, layout: Layout) -> int:
    if layout.length > 1:
        return -(-x.numel() // layout.length)
    return -(-(x.numel() // layout.channels) // _ROWS)


def _run(
    direction: str,
    layout: Layout,
    table: Tensor,
    x: Tensor,
    gradient: Tensor | None,
    result: Tensor,
    sums: Tensor | None,
) -> None:
    if x.numel() == 0:
        if sums is not None:
            sums.zero_()
        return
    is_last = layout.length == 1
    length = _ROWS if is_last else layout.length
    pointers = [None if t is None else t.data_ptr() for t in (x, gradient, table, result, sums)]
    job = _Job(*pointers, x.numel(), layout.channels, length)
    elements = length * layout.channels if is_last else length
    at_once = max(1, native.AT_ONCE // elements)
    native.start(f"{direction}{'_last' if is_last else ''}", x.dtype, _units(x, layout), at_once, job)
