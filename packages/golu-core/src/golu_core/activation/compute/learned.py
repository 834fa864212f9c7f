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
from .parameters import check_parameter
from .plain import is_plain, nobody_watches


def golu_learned(x: Tensor, alpha: float | Tensor, beta: float | Tensor, gamma: float | Tensor) -> Tensor:
    """GoLU of x, of any shape, with parameters that are tensors, and are differentiated like x.

    By kernels, where the device has them and at most one dimension of x has parameters of its own; else by the
    expression.

    Args:
        x: The input, of any shape, dtype and device.
        alpha, beta, gamma: tensors that broadcast to x's shape, or numbers beside them. Where a tensor is not positive
            and finite, the result is NaN.

    Raises:
        TypeError: x is not of a floating-point dtype, or a parameter is complex.
        ValueError: a number is not from 1e-6 to 1e6, or a tensor's shape does not broadcast to x's.
    """
    given = zip(("alpha", "beta", "gamma"), (alpha, beta, gamma), strict=True)
    alpha, beta, gamma = (_checked(name, parameter, x) for name, parameter in given)
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


def _checked(name: str, parameter: float | Tensor, x: Tensor) -> Tensor:
    """A parameter as a tensor; a number in the type of the computation, whatever torch's default is."""
    if not isinstance(parameter, Tensor):
        computed = torch.float64 if x.dtype == torch.float64 else torch.float32
        return torch.tensor(check_parameter(name, parameter), dtype=computed, device=x.device)
    if parameter.is_complex():
        raise TypeError(f"GoLU's {name} must be real, not of {parameter.dtype}")
    before = x.ndim - parameter.ndim
    sizes = enumerate(parameter.shape, before)
    if before < 0 or not all(size == 1 or size == x.shape[at] for at, size in sizes):
        raise ValueError(
            f"GoLU's {name} must broadcast to x's shape {tuple(x.shape)}, which its shape {tuple(parameter.shape)} "
            f"does not"
        )
    return parameter


def _implementation(x: Tensor) -> Any:
    """The module that has kernels for x's device, None where they are missing."""
    if x.is_cpu:
        return None if native.kernels() is None else learned_cpu
    return learned_cuda if x.is_cuda and kernel.kernels_available() else None


class _LearnedGoLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor, beta: Tensor, gamma: Tensor, layout: Layout) -> Tensor:
        ctx.save_for_backward(x, alpha, beta, gamma)
        ctx.kinds = [_kind(tensor) for tensor in (x, alpha, beta, gamma)]
        computes = _implementation(x)
        ctx.layout, ctx.prepared = layout, computes.prepared(x.dtype, layout, alpha, beta, gamma)
        y: Tensor = computes.forward(x, ctx.prepared, layout)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors  # through hooks, which may return anything
        alike = [_kind(tensor) for tensor in inputs] == ctx.kinds and _kind(gradient) == ctx.kinds[0]
        if torch.is_grad_enabled() or not (alike and all(map(is_plain, (gradient, *inputs))) and nobody_watches()):
            return (*_by_expression(inputs, gradient, ctx.needs_input_grad), None)
        return (*_implementation(inputs[0]).backward(gradient, inputs, ctx.prepared, ctx.layout), None)


def _kind(tensor: Tensor) -> tuple[torch.dtype, torch.Size, torch.device]:
    return tensor.dtype, tensor.shape, tensor.device


def _by_expression(inputs: Sequence[Tensor], gradient: Tensor, needed: Sequence[bool]) -> tuple[Tensor | None, ...]:
    """Gradients that can be differentiated again.

    They are taken of aliases: one tensor may be two of the parameters, or x depend on one.
    """
    with torch.enable_grad():
        aliases = [tensor.view_as(tensor) for tensor in inputs]
        y = golu_learned_expression(*aliases)
        wanted = [tensor for tensor, is_needed in zip(aliases, needed, strict=False) if is_needed]
        found = iter(torch.autograd.grad(y, wanted, gradient.to(y.dtype), create_graph=True))
    return tuple(next(found) if is_needed else None for is_needed in needed[: len(inputs)])
