"""GoLU whose parameters are tensors on a GPU, by the kernels of `golu.cu`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from . import kernel
from .channel_layout import Layout, in_order, of_parameters
from .layout import KERNEL_DTYPES, laid_out_like

_LANES = 32
"""Threads that take one stretch of a channel: those of a warp."""
_FEWEST, _MOST = 8, 64
"""Elements of a thread, by the size of the tensor: each leaves three sums, and each takes two logarithms."""
_THREADS_WANTED_LOG2 = 18


class SumLayout(NamedTuple):
    """How the threads share a tensor, in golu.cu's terms; it follows from the shape alone, and so do all sums."""

    rows: int
    channels: int
    columns: int
    rows_at_once: int
    columns_at_once: int
    parts_of_columns: int
    lanes: int
    threads: int


def split_of(count: int, layout: Layout) -> SumLayout:
    """The split of a tensor of `count` elements, at least one."""
    channels, columns = layout.channels, layout.length
    rows = count // (channels * columns)
    lanes = 1 if columns == 1 else _LANES
    together = lanes * min(_MOST, max(_FEWEST, count >> _THREADS_WANTED_LOG2))
    columns_at_once, rows_at_once = min(columns, together), max(1, together // columns)
    parts_of_columns = -(-columns // columns_at_once)
    threads = parts_of_columns * -(-rows // rows_at_once) * channels * lanes
    return SumLayout(rows, channels, columns, rows_at_once, columns_at_once, parts_of_columns, lanes, threads)


def prepared(dtype: torch.dtype, layout: Layout, alpha: Tensor, beta: Tensor, gamma: Tensor) -> list[Tensor]:
    """The parameters, of any shape that broadcasts to x's, as vectors of the type that the kernel computes in."""
    return [p.detach().to(_computed(dtype)).reshape(-1) for p in (alpha, beta, gamma)]


def forward(x: Tensor, parameters: Sequence[Tensor], layout: Layout) -> Tensor:
    """GoLU of a CUDA tensor of any shape; parameters and layout as `prepared` has them."""
    ordered = in_order(x, layout)
    result = torch.empty_like(ordered)
    _launch("learned_forward", split_of(x.numel(), layout), parameters, ordered, None, result, None)
    return result if ordered is x else laid_out_like(result, torch.empty_like(x))


def backward(
    gradient: Tensor, inputs: Sequence[Tensor], parameters: Sequence[Tensor], layout: Layout
) -> tuple[Tensor, ...]:
    """The gradients with respect to x, alpha, beta and gamma.

    Sums of threads are added in float64.

    Args:
        gradient: The gradient of the output, of x's shape.
        inputs: x of any shape, and the parameters in their own shapes.
        parameters, layout: The values that `prepared` returned.
    """
    x = in_order(inputs[0], layout)
    gradient = laid_out_like(gradient, x)
    result = torch.empty_like(x)
    split = split_of(x.numel(), layout)
    sums = torch.empty(3, split.threads, dtype=_computed(x.dtype), device=x.device)
    _launch("learned_backward", split, parameters, x, gradient, result, sums)
    by_channel = sums.view(3, -1, split.channels, split.lanes).sum((1, 3), dtype=torch.float64)
    return result, *of_parameters(by_channel, parameters[1], inputs[1:])


def _computed(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _launch(
    direction: str,
    split: SumLayout,
    parameters: Sequence[Tensor],
    x: Tensor,
    gradient: Tensor | None,
    result: Tensor,
    sums: Tensor | None,
) -> None:
    tensors = (x, gradient, *parameters, result, sums)
    pointers = [0 if tensor is None else tensor.data_ptr() for tensor in tensors]
    steps = [int(parameter.numel() > 1) for parameter in parameters]
    kernel.start(
        f"golu_{direction}_{KERNEL_DTYPES[x.dtype]}", x.get_device(), split.threads, (*pointers, *steps, *split)
    )
