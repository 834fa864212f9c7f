"""How tensors lie in memory, for the compiled kernels: their dtypes, dense blocks, and rows that lie apart."""

from __future__ import annotations

import torch
from torch import Tensor

KERNEL_DTYPES = {
    torch.float64: "float64",
    torch.float32: "float32",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
}
"""What the kernels compute, with the names in their sources."""

_SHORTEST_ROW = 8
"""Elements below which a copy costs less than a loop over rows."""

Placed = tuple[Tensor, int]
"""A tensor, and how many elements apart its rows begin."""


def dense(x: Tensor) -> Tensor:
    """x, of any shape, where its elements fill one block of memory without gaps or overlap; else a copy that does."""
    return x if x.is_contiguous() or torch.empty_like(x).stride() == x.stride() else x.clone()


def laid_out_like(tensor: Tensor, dense_tensor: Tensor) -> Tensor:
    """The tensor, copied only if its strides are not those of `dense_tensor`; both have one shape."""
    if tensor.stride() == dense_tensor.stride():
        return tensor
    return torch.empty_like(dense_tensor).copy_(tensor)


def rows(result: Tensor, *inputs: Tensor) -> tuple[int, list[Placed]]:
    """How many elements lie side by side in each input, and the inputs with their rows' strides.

    Args:
        result: dense, of any shape.
        inputs: Tensors of that shape. One that has no equal rows, such as every second element, is copied.
    """
    strides, count = result.stride(), max(result.numel(), 1)
    if all(tensor.stride() == strides for tensor in inputs):
        return count, [(tensor, 0) for tensor in inputs]
    if not result.is_contiguous():
        return count, [(laid_out_like(tensor, result), 0) for tensor in inputs]
    found = [_rows_of(tensor) for tensor in inputs]
    columns = min((columns for columns, _ in filter(None, found)), default=count)
    placed = []
    for tensor, lies in zip(inputs, found, strict=True):
        if lies is not None and lies[0] == columns:
            placed.append((tensor, lies[1]))
        else:
            placed.append((tensor if lies == (count, 0) else laid_out_like(tensor, result), columns))
    return columns, placed


def _rows_of(tensor: Tensor) -> tuple[int, int] | None:
    """The elements of a row that lie side by side, and the stride of the rows; None if they are not all equal."""
    columns, row_stride, span = 1, 0, 0
    for size, stride in zip(reversed(tensor.shape), reversed(tensor.stride()), strict=True):
        if size == 1:
            continue
        if not row_stride and stride == columns:
            columns *= size
        elif not row_stride and stride > columns:
            row_stride, span = stride, stride * size
        elif row_stride and stride == span:
            span *= size
        else:
            return None
    return (columns, row_stride) if columns >= _SHORTEST_ROW or not row_stride else None
