"""GoLU as differentiable torch operations: what compilers, exporters, TorchScript and functional transforms see.

Without `from __future__ import annotations`, since TorchScript reads the annotations themselves.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .parameters import check_parameter, gate_range
from .plain import is_traced_or_forward_mode


def golu_expression(x: Tensor, alpha: float = 1.0, beta: float = 1.0, gamma: float = 1.0) -> Tensor:
    """Compute GoLU of a tensor of any shape by differentiable torch operations, which TorchScript can compile.

    `golu` uses it wherever its kernels do not run: when compiled or exported, and under functional transforms. x is
    clipped where the gate is constant. `threshold` lets NaN through, and its gradient is selected, not multiplied; that
    of `clamp` hides NaN, and that of `hardtanh` does so in vectorized code only.

    Args:
        x: A tensor of any shape and floating-point dtype; half types are computed in float32 and rounded once.
        alpha, beta, gamma: The gate's height, shift and steepness, each from 1e-6 to 1e6.

    Raises:
        TypeError: x does not have a floating-point dtype.
        ValueError: A parameter is out of its range.

    Examples:
        >>> import torch
        >>> from golu_core.activation import golu_expression
        >>> torch.func.grad(golu_expression)(torch.tensor(0.0))  # exp(-1), the value of the gate
        tensor(0.3679)
    """
    if not torch.jit.is_scripting():
        check_parameter("alpha", alpha)
        check_parameter("beta", beta)
        check_parameter("gamma", gamma)
    wide = _at_least_float32(x)
    low, high = gate_range(beta, gamma)
    # torch's older exporter to ONNX knows no `threshold`, and a tangent at infinity must not be multiplied by it
    if torch.jit.is_scripting() or is_traced_or_forward_mode():
        over = wide > high
        inside = torch.where(wide < low, low, torch.where(over, high, wide))
        value = torch.where(over, wide, inside * torch.exp(-_decay(-inside, beta, gamma)))
    else:
        cut = F.threshold(wide, low, low)
        value = cut * torch.exp(-_decay(F.threshold(-cut, -high, -high), beta, gamma))
    if alpha != 1.0:
        value = alpha * value
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
        value = torch.clamp(wide, min=low) * torch.exp(-_decay(-wide, beta, gamma))
        return (value if alpha == 1.0 else alpha * value).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (x,) = ctx.saved_tensors
        alpha, beta, gamma = ctx.parameters
        wide = _at_least_float32(x)
        low, high = gate_range(beta, gamma)
        slope = _slope(torch.clamp(-wide, -high, -low), alpha, beta, gamma)
        return (gradient * slope).to(gradient.dtype), None, None, None


def golu_learned_expression(x: Tensor, alpha: Tensor, beta: Tensor, gamma: Tensor) -> Tensor:
    """GoLU with parameters that are tensors, and are differentiated like x.

    In the logarithm of `beta * exp(-gamma * x)`, which is cut where the gate is 0 or alpha to the last bit: no
    derivative, of x or of a parameter, then has a 0 * inf in it.

    Args:
        x: The input, of any shape; half types are computed in float32 and rounded once.
        alpha, beta, gamma: Tensors that broadcast to x's shape. Where one is not positive and finite, the result
            and its gradients are NaN, as the kernels have it.

    Raises:
        TypeError: x is not of a floating-point dtype.
    """
    wide = _at_least_float32(x)
    alpha, beta, gamma = alpha.to(wide.dtype), beta.to(wide.dtype), gamma.to(wide.dtype)
    known = _is_positive(alpha) & _is_positive(beta) & _is_positive(gamma)
    beta = beta * torch.where(known, torch.ones_like(beta), float("nan"))
    limits = torch.finfo(wide.dtype)
    exponent = torch.log(beta) - gamma * wide.clamp(limits.min, limits.max)
    low, high = gate_range(1.0, 1.0)
    closed, open_ = exponent > -low, exponent < -high
    inside = torch.where(closed, 0.0, torch.where(open_, -high, exponent))
    gate = torch.where(closed, 0.0, torch.exp(-torch.exp(inside)))
    moved = torch.where(closed | open_, 0.0, wide) * gate
    return (alpha * torch.where(open_, wide, moved)).to(x.dtype)


def _is_positive(parameter: Tensor) -> Tensor:
    return (parameter > 0) & (parameter < float("inf"))


def golu_slope_expression(x: Tensor, alpha: float = 1.0, beta: float = 1.0, gamma: float = 1.0) -> Tensor:
    """GoLU's derivative, of any shape, as differentiable torch operations; in float32 for the half types."""
    wide = _at_least_float32(x)
    low, high = gate_range(beta, gamma)
    return _slope(F.threshold(-F.threshold(wide, low, low), -high, -high), alpha, beta, gamma)


def _slope(mirrored: Tensor, alpha: float, beta: float, gamma: float) -> Tensor:
    decay = _decay(mirrored, beta, gamma)
    gate = torch.exp(-decay)
    if alpha != 1.0:
        gate = alpha * gate
    steepness = mirrored * decay if gamma == 1.0 else gamma * (mirrored * decay)
    return gate * (1.0 - steepness)


def _decay(mirrored: Tensor, beta: float, gamma: float) -> Tensor:
    """`beta * exp(-gamma * x)` of -x."""
    decay = torch.exp(mirrored if gamma == 1.0 else gamma * mirrored)
    return decay if beta == 1.0 else beta * decay


def _at_least_float32(x: Tensor) -> Tensor:
    if not x.is_floating_point():
        raise TypeError(f"GoLU needs a floating-point tensor, not {x.dtype}")
    return x if x.dtype == torch.float32 or x.dtype == torch.float64 else x.float()
