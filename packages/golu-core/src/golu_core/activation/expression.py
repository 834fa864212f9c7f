"""GoLU as differentiable torch operations: what compilers, exporters, TorchScript and functional transforms see.

Without `from __future__ import annotations`, since TorchScript reads the annotations themselves.
"""

from typing import Any

import torch
from torch import Tensor

from .parameters import check_parameter, gate_range

_OPEN = -60.0  # exp of this, subtracted from 1, is nothing in float64


def golu_expression(x: Tensor, alpha: float = 1.0, beta: float = 1.0, gamma: float = 1.0) -> Tensor:
    """GoLU of any shape as differentiable torch operations, for TorchScript, too.

    `where` and not `clamp` keeps x in the range where the gate moves: then no derivative of any order, in either mode,
    has a 0 * inf in it, and NaN passes through.

    Raises:
        TypeError: x is not of a floating-point dtype.
        ValueError: a parameter is not positive.
    """
    if not torch.jit.is_scripting():
        check_parameter("alpha", alpha)
        check_parameter("beta", beta)
        check_parameter("gamma", gamma)
    wide = _at_least_float32(x)
    low, high = gate_range(beta, gamma)
    over = wide > high
    inside = torch.where(wide < low, low, torch.where(over, high, wide))
    value = inside * torch.exp(-_decay(inside, beta, gamma))
    if alpha != 1.0:
        value = alpha * value
        wide = alpha * wide
    value = torch.where(over, wide, value)
    return value if value.dtype == x.dtype else value.to(x.dtype)


def golu_compiled(x: Tensor, alpha: float, beta: float, gamma: float) -> Tensor:
    """As `golu_expression`, of any shape, for `torch.compile`: faster there, since the gradient has no `where`.

    Raises:
        TypeError: x is not of a floating-point dtype.
        ValueError: a parameter is not positive.
    """
    checked = check_parameter("alpha", alpha), check_parameter("beta", beta), check_parameter("gamma", gamma)
    y: Tensor = _CompiledGoLU.apply(x, *checked)
    return y


class _CompiledGoLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: float, beta: float, gamma: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.parameters = (alpha, beta, gamma)
        wide = _at_least_float32(x)
        low, _ = gate_range(beta, gamma)
        value = torch.clamp(wide, min=low) * torch.exp(-_decay(wide, beta, gamma))
        return (value if alpha == 1.0 else alpha * value).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (x,) = ctx.saved_tensors
        alpha, beta, gamma = ctx.parameters
        wide = _at_least_float32(x)
        low, high = gate_range(beta, gamma)
        slope = _slope(torch.clamp(wide, low, high), alpha, beta, gamma)
        return (gradient * slope).to(x.dtype), None, None, None


def golu_learned_expression(x: Tensor, alpha: Tensor, beta: Tensor, gamma: Tensor) -> Tensor:
    """GoLU with parameters that are tensors, and are differentiated like x.

    In the logarithm of `beta * exp(-gamma * x)`, which is cut where the gate is 0 or alpha to the last bit: no
    derivative, of x or of a parameter, then has a 0 * inf in it.

    Args:
        x: of any shape; in float32 for the half types, and rounded once.
        alpha, beta, gamma: positive, which is not checked; of shapes that x's takes by broadcasting.

    Raises:
        TypeError: x is not of a floating-point dtype.
    """
    wide = _at_least_float32(x)
    alpha, beta, gamma = alpha.to(wide.dtype), beta.to(wide.dtype), gamma.to(wide.dtype)
    limits = torch.finfo(wide.dtype)
    exponent = torch.log(beta) - gamma * wide.clamp(limits.min, limits.max)
    closed = exponent > (7.0 if wide.dtype == torch.float64 else 5.0)
    inside = torch.where(closed, 0.0, torch.where(exponent < _OPEN, _OPEN, exponent))
    gate = torch.where(closed, 0.0, torch.exp(-torch.exp(inside)))
    return (alpha * torch.where(closed, 0.0, wide) * gate).to(x.dtype)


def golu_slope_expression(x: Tensor, alpha: float = 1.0, beta: float = 1.0, gamma: float = 1.0) -> Tensor:
    """GoLU's derivative, of any shape, as differentiable torch operations; in float32 for the half types."""
    wide = _at_least_float32(x)
    low, high = gate_range(beta, gamma)
    inside = torch.where(wide < low, low, torch.where(wide > high, high, wide))
    return _slope(inside, alpha, beta, gamma)


def _slope(inside: Tensor, alpha: float, beta: float, gamma: float) -> Tensor:
    decay = _decay(inside, beta, gamma)
    gate = torch.exp(-decay)
    if alpha != 1.0:
        gate = alpha * gate
    steepness = inside * decay if gamma == 1.0 else gamma * (inside * decay)
    return gate * (1.0 + steepness)


def _decay(inside: Tensor, beta: float, gamma: float) -> Tensor:
    decay = torch.exp(-inside if gamma == 1.0 else -gamma * inside)
    return decay if beta == 1.0 else beta * decay


def _at_least_float32(x: Tensor) -> Tensor:
    if not x.is_floating_point():
        raise TypeError(f"GoLU needs a floating-point tensor, not {x.dtype}")
    return x if x.dtype == torch.float32 or x.dtype == torch.float64 else x.float()
