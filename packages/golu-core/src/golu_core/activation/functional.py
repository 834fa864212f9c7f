"""`golu`: one function, and the choice of what computes it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import eager, kernel
from .parameters import GompertzParameters, gate_range, gompertz_parameters

_PLAIN_TYPES = (Tensor, torch.nn.Parameter)


def golu(x: Tensor, alpha: float = 1.0, beta: float = 1.0, gamma: float = 1.0) -> Tensor:
    """The Gompertz Linear Unit, `x * alpha * exp(-beta * exp(-gamma * x))`, element by element.

    Das, Safari, Adriaensen, Hutter: "Gompertz Linear Units", NeurIPS 2025, arXiv 2502.03654, equations 1 and 2.

    Args:
        x: any shape, strides and device; float64, float32, float16 or bfloat16. The half types are computed in float32
            and rounded once.
        alpha, beta, gamma: the gate's height, shift and steepness, each from 1e-6 to 1e6.

    Returns:
        A tensor of x's shape, dtype and memory format. GoLU(-inf) = -0 with gradient 0, GoLU(inf) = inf with gradient
        alpha, and NaN stays NaN.

    Raises:
        TypeError: x is not of a floating-point dtype.
        ValueError: a parameter is not positive.
    """
    if not _runs_eagerly(x):
        return golu_expression(x, alpha, beta, gamma)
    parameters = gompertz_parameters(alpha, beta, gamma)
    if x.dtype not in kernel.KERNEL_DTYPES:
        raise TypeError(f"GoLU needs a float64, float32, float16 or bfloat16 tensor, not {x.dtype}")
    if x.requires_grad and torch.is_grad_enabled():
        y: Tensor = _EagerGoLU.apply(x, parameters)
    else:
        y = _implementation(x).golu_forward(x, parameters)
    return y


def golu_expression(x: Tensor, alpha: float = 1.0, beta: float = 1.0, gamma: float = 1.0) -> Tensor:
    """GoLU of any shape as differentiable torch operations; what compilers, exporters and functional transforms see.

    `where` and not `clamp` keeps x in the range where the gate moves: then no derivative of any order, in either mode,
    has a 0 * inf in it, and NaN passes through.
    """
    wide = _at_least_float32(x)
    inside, high = _inside(wide, beta, gamma)
    value = alpha * inside * torch.exp(-beta * torch.exp(-gamma * inside))
    return torch.where(wide > high, alpha * wide, value).to(x.dtype)


def golu_slope_expression(x: Tensor, alpha: float = 1.0, beta: float = 1.0, gamma: float = 1.0) -> Tensor:
    """GoLU's derivative, of any shape, as differentiable torch operations; in float32 for the half types."""
    inside, _ = _inside(_at_least_float32(x), beta, gamma)
    decay = beta * torch.exp(-gamma * inside)
    return alpha * torch.exp(-decay) * (1.0 + gamma * inside * decay)


def _at_least_float32(x: Tensor) -> Tensor:
    if not x.is_floating_point():
        raise TypeError(f"GoLU needs a floating-point tensor, not {x.dtype}")
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _inside(x: Tensor, beta: float, gamma: float) -> tuple[Tensor, float]:
    """x moved into the range in which the gate moves, without a gradient outside, and the range's upper end."""
    low, high = gate_range(beta, gamma)
    return torch.where(x < low, low, torch.where(x > high, high, x)), high


def _runs_eagerly(x: Tensor) -> bool:
    """Whether x is a plain tensor with memory and nobody traces, transforms or intercepts the call.

    The names with an underscore are torch's own; a test fails when one of them goes away.
    """
    return (
        not torch.compiler.is_compiling()
        and type(x) in _PLAIN_TYPES
        and x.layout is torch.strided
        and not x.is_meta
        and forward_ad._current_level < 0
        and torch._C._functorch.peek_interpreter_stack() is None
        and not torch._C._functorch.is_legacy_batchedtensor(x)
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._get_tracing_state() is None
    )


def _implementation(x: Tensor) -> Any:
    """The module that computes x: the CUDA kernel where it can run, else in-place torch operations."""
    return kernel if x.is_cuda and kernel.kernels_available() else eager


class _EagerGoLU(torch.autograd.Function):
    """Saves x alone. Only for plain tensors: everything else takes the expression."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, parameters: GompertzParameters) -> Tensor:
        ctx.save_for_backward(x)
        ctx.parameters = parameters
        y: Tensor = _implementation(x).golu_forward(x, parameters)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        p = ctx.parameters
        if torch.is_grad_enabled() or not (_runs_eagerly(gradient) and _runs_eagerly(x)):
            slope = golu_slope_expression(x, p.alpha, p.beta, p.gamma)
            return (gradient.to(slope.dtype) * slope).to(x.dtype), None
        return _implementation(x).golu_backward(gradient, x, p), None
