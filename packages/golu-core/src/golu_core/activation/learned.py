"""GoLU whose parameters are tensors, by compiled kernels: one pass each way, which keeps x and the parameters.

dy/dalpha = x * exp(-d)       dy/dbeta = -y * d / beta       dy/dgamma = x * y * d       d = beta * exp(-gamma * x)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import kernel, learned_cpu, learned_cuda, native
from .channel_layout import Layout, layout_of
from .expression import golu_learned_expression
from .plain import is_plain, nobody_watches


def golu_learned(x: Tensor, alpha: Tensor, beta: Tensor, gamma: Tensor) -> Tensor:
    """GoLU of x, of any shape, with parameters that are tensors, and are differentiated like x.

    By kernels, where the device has them and at most one dimension of x has parameters of its own; else by the
    expression.

    Args:
        x: of any shape, dtype and device.
        alpha, beta, gamma: positive; where beta or gamma is not, the kernels' result is NaN.

    Raises:
        TypeError: x is not of a floating-point dtype.
    """
    layout = None
    if not torch.compiler.is_compiling() and all(map(is_plain, (x, alpha, beta, gamma))) and nobody_watches():
        layout = layout_of(x, [alpha, beta, gamma]) if _implementation(x) is not None else None
    if layout is None:
        return golu_learned_expression(x, alpha, beta, gamma)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, alpha, beta, gamma)):
        y: Tensor = _LearnedGoLU.apply(x, alpha, beta, gamma, layout)
        return y
    computes = _implementation(x)
    value: Tensor = computes.forward(x, computes.prepared(x.dtype, layout, alpha, beta, gamma), layout)
    return value


def _implementation(x: Tensor) -> Any:
    """The module that has kernels for x's device, None where they are missing."""
    if x.is_cpu:
        return None if native.kernels() is None else learned_cpu
    return learned_cuda if x.is_cuda and kernel.kernels_available() else None


class _LearnedGoLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor, beta: Tensor, gamma: Tensor, layout: Layout) -> Tensor:
        ctx.save_for_backward(x, alpha, beta, gamma)
        computes = _implementation(x)
        ctx.layout, ctx.prepared = layout, computes.prepared(x.dtype, layout, alpha, beta, gamma)
        y: Tensor = computes.forward(x, ctx.prepared, layout)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        if torch.is_grad_enabled() or not (all(map(is_plain, (gradient, *inputs))) and nobody_watches()):
            return (*_by_expression(inputs, gradient, ctx.needs_input_grad), None)
        return (*_implementation(inputs[0]).backward(gradient, inputs, ctx.prepared, ctx.layout), None)


def _by_expression(inputs: Sequence[Tensor], gradient: Tensor, needed: Sequence[bool]) -> tuple[Tensor | None, ...]:
    """Gradients that can be differentiated again."""
    with torch.enable_grad():
        y = golu_learned_expression(*inputs)
        wanted = [tensor for tensor, is_needed in zip(inputs, needed, strict=False) if is_needed]
        found = iter(torch.autograd.grad(y, wanted, gradient, create_graph=True))
    return tuple(next(found) if is_needed else None for is_needed in needed[: len(inputs)])
