"""`golu` and `gated_golu`: functions, and the choice of what computes them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from .compute import eager, kernel, native
from .compute.expression import golu_compiled, golu_slope_expression
from .compute.expression import golu_expression as golu_expression
from .compute.learned import golu_learned
from .compute.parameters import GompertzParameters, gompertz_parameters
from .compute.plain import are_plain_and_alike, is_plain, is_transformed, nobody_watches


def golu(x: Tensor, alpha: float | Tensor = 1.0, beta: float | Tensor = 1.0, gamma: float | Tensor = 1.0) -> Tensor:
    """Apply the Gompertz Linear Unit, `x * alpha * exp(-beta * exp(-gamma * x))`, element by element.

    Das, Safari, Adriaensen, Hutter: "Gompertz Linear Units", NeurIPS 2025, arXiv 2502.03654, equations 1 and 2.

    Args:
        x: A tensor of any shape, strides and device, in float64, float32, float16 or bfloat16. Half types are computed
            in float32 and rounded once.
        alpha, beta, gamma: The gate's height, shift and steepness. Each is a number from 1e-6 to 1e6, or a tensor that
            broadcasts to x's shape and is differentiated like x. The values of a tensor must be positive and finite:
            where one of the three is not, the result and its gradients are NaN, on every device and when compiled.

    Returns:
        A tensor of x's shape, dtype and memory format. GoLU(-inf) = -0 with gradient 0, GoLU(inf) = inf with gradient
        alpha, and NaN stays NaN.

    Raises:
        TypeError: x is not a dense or nested tensor of a floating-point dtype, or a parameter is complex.
        ValueError: A parameter is neither a number from 1e-6 to 1e6 nor a tensor, or its shape does not broadcast to
            x's.

    Examples:
        >>> import torch
        >>> from golu_core import golu
        >>> golu(torch.tensor([-1.0, 0.0, 2.0]))
        tensor([-0.0660,  0.0000,  1.7468])
    """
    if has_torch_function((x,)):  # a subclass, a proxy of torch.fx, or a mode: all see one call, as of torch's own
        return handle_torch_function(golu, (x,), x, alpha=alpha, beta=beta, gamma=gamma)
    if isinstance(alpha, Tensor) or isinstance(beta, Tensor) or isinstance(gamma, Tensor):
        _check_tensor(x, "x")
        return _of_nested(x, alpha, beta, gamma) if _has_parts(x) else golu_learned(x, alpha, beta, gamma)
    if torch.compiler.is_compiling():
        traced = golu_expression if torch.compiler.is_exporting() or is_transformed() else golu_compiled
        return traced(x, alpha, beta, gamma)
    parameters = gompertz_parameters(alpha, beta, gamma)
    if not (is_plain(x) and nobody_watches()):
        _check_tensor(x, "x")
        return _of_nested(x, alpha, beta, gamma) if _has_parts(x) else golu_expression(x, alpha, beta, gamma)
    if x.dtype not in kernel.KERNEL_DTYPES:
        raise TypeError(f"GoLU needs a float64, float32, float16 or bfloat16 tensor, not {x.dtype}")
    if x.requires_grad and torch.is_grad_enabled():
        y: Tensor = _EagerGoLU.apply(x, parameters)
    else:
        y = _implementation(x).golu_forward(x, parameters)
    return y


def gated_golu(
    x: Tensor,
    other: Tensor,
    alpha: float | Tensor = 1.0,
    beta: float | Tensor = 1.0,
    gamma: float | Tensor = 1.0,
) -> Tensor:
    """Compute `golu(x) * other`, as in gated linear units (Shazeer, 2020, arXiv 2002.05202).

    With compiled kernels, and parameters that are numbers, this is one pass over memory in each direction, and only x
    and `other` are saved for the backward pass. Otherwise it is a call of `golu` and a product.

    Args:
        x: A tensor of any shape, as for `golu`. Halves of one tensor, as from `chunk(2, -1)`, are not copied.
        other: A tensor of x's shape, dtype and device; for others, torch's rules of broadcasting and promotion hold.
        alpha, beta, gamma: The gate's parameters, as for `golu`.

    Raises:
        TypeError: x or `other` is not a tensor, or x does not have a floating-point dtype.
        ValueError: `golu` refuses a parameter.

    Examples:
        >>> import torch
        >>> from golu_core import gated_golu
        >>> gate, up = torch.tensor([[-1.0, 2.0, 3.0, 0.5]]).chunk(2, -1)
        >>> gated_golu(gate, up)
        tensor([[-0.1980,  0.8734]])
    """
    if has_torch_function((x, other)):
        return handle_torch_function(gated_golu, (x, other), x, other, alpha=alpha, beta=beta, gamma=gamma)
    _check_tensor(other, "other")
    if isinstance(alpha, Tensor) or isinstance(beta, Tensor) or isinstance(gamma, Tensor):
        return golu(x, alpha, beta, gamma) * other
    if not torch.compiler.is_compiling() and _is_one_pass(x, other):
        parameters = gompertz_parameters(alpha, beta, gamma)
        if torch.is_grad_enabled() and (x.requires_grad or other.requires_grad):
            y: Tensor = _GatedGoLU.apply(x, other, parameters)
            return y
        gated: Tensor = _implementation(x).gated_forward(x, other, parameters)
        return gated
    return golu(x, alpha, beta, gamma) * other


def _check_tensor(x: Any, name: str) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"GoLU's {name} must be a Tensor, not {type(x).__name__}")
    if x.layout not in (torch.strided, torch.jagged):
        raise TypeError(f"GoLU's {name} must be dense, not of layout {x.layout}: call to_dense() first")


def _has_parts(x: Tensor) -> bool:
    """Whether x is a nested tensor that torch has few operations for; of a jagged one it has what GoLU needs."""
    return x.is_nested and x.layout is torch.strided


def _of_nested(x: Tensor, alpha: float | Tensor, beta: float | Tensor, gamma: float | Tensor) -> Tensor:
    parts = [golu(part, alpha, beta, gamma) for part in x.unbind()]
    return torch.nested.as_nested_tensor(parts, layout=torch.strided)


def _is_one_pass(x: Tensor, other: Tensor) -> bool:
    return (
        are_plain_and_alike(x, other)
        and nobody_watches()
        and x.dtype in kernel.KERNEL_DTYPES
        and _implementation(x) is not eager
    )


def _implementation(x: Tensor) -> Any:
    """The module that computes x: the kernels of its device where they can run, else in-place torch operations."""
    if x.is_cpu:
        return eager if native.kernels() is None else native
    return kernel if x.is_cuda and kernel.kernels_available() else eager


class _EagerGoLU(torch.autograd.Function):
    """Saves x alone. Only for plain tensors: everything else takes the expression.

    So does a backward pass whose x is not what was saved, since saved-tensor hooks may return anything.
    """

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
        if torch.is_grad_enabled() or not (are_plain_and_alike(gradient, x) and nobody_watches()):
            slope = golu_slope_expression(x, p.alpha, p.beta, p.gamma)
            return (gradient.to(slope.dtype) * slope).to(gradient.dtype), None
        return _implementation(x).golu_backward(gradient, x, p), None


class _GatedGoLU(torch.autograd.Function):
    """Saves x and what it gates. Only for plain tensors of one shape, dtype and device that has compiled kernels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, other: Tensor, parameters: GompertzParameters) -> Tensor:
        ctx.save_for_backward(x, other)
        ctx.parameters = parameters
        y: Tensor = _implementation(x).gated_forward(x, other, parameters)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, other = ctx.saved_tensors
        p = ctx.parameters
        if torch.is_grad_enabled() or not (are_plain_and_alike(gradient, x, other) and nobody_watches()):
            slope = golu_slope_expression(x, p.alpha, p.beta, p.gamma)
            wide = gradient.to(slope.dtype)
            value = golu_expression(x.to(slope.dtype), p.alpha, p.beta, p.gamma)
            return (wide * other * slope).to(gradient.dtype), (wide * value).to(gradient.dtype), None
        return (*_implementation(x).gated_backward(gradient, x, other, p), None)
