"""How the channels of a tensor lie in memory, of which each has parameters of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .layout import KERNEL_DTYPES, dense


class Layout(NamedTuple):
    """How the channels of a tensor lie in memory.

    Attributes:
        channels: how many there are.
        length: elements of a channel side by side; 1 where the channels are. All of them where there is one channel.
        channels_last: whether the channels are x's second dimension and x is in torch's channels_last format; where
            they are not, x is contiguous.
    """

    channels: int
    length: int
    channels_last: bool = False


def layout_of(x: Tensor, parameters: list[Tensor]) -> Layout | None:
    """The layout of x's channels, of which each has its parameters; None where the kernels do not have it.

    Args:
        x: The input, of any shape.
        parameters: alpha, beta and gamma, of shapes that x's takes by broadcasting.
    """
    if x.dtype not in KERNEL_DTYPES or not x.numel():
        return None
    if not all(p.device == x.device and p.is_floating_point() and p.numel() for p in parameters):
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
        return Layout(1, x.numel())
    if len(own) > 1:
        return None
    (dimension,) = own
    if dimension == 1 and _is_channels_last(x):
        return Layout(x.shape[1], 1, channels_last=True)
    return Layout(x.shape[dimension], x.shape[dimension + 1 :].numel())


def _is_channels_last(x: Tensor) -> bool:
    return not x.is_contiguous() and (
        (x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last))
        or (x.ndim == 5 and x.is_contiguous(memory_format=torch.channels_last_3d))
    )


def of_parameters(sums: Tensor, beta: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The gradients of alpha, beta and gamma, of their shapes and dtypes.

    Args:
        sums: (3, channels), by channel the gradient's products with y / alpha, y * d and x * y * d, where d is
            beta * exp(-gamma * x).
        beta: (channels,), or one for all of them, scalar.
        parameters: alpha, beta and gamma, of any shape: one for each channel or one for all of them.
    """
    by_channel = sums[0], sums[1] / -beta.double(), sums[2]
    return tuple(
        (found if parameter.numel() == found.numel() else found.sum()).view(parameter.shape).to(parameter.dtype)
        for found, parameter in zip(by_channel, parameters, strict=True)
    )


def in_order(x: Tensor, layout: Layout) -> Tensor:
    """x, of any shape, in memory as its layout says, copied if it is not."""
    if layout.channels == 1:
        return dense(x)
    if layout.channels_last:
        return x.contiguous(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d)
    return x.contiguous()
