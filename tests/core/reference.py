"""GoLU in float64, written down from the paper alone, and the error measures that the tests share."""

import torch
from torch import Tensor


def reference_forward(x: Tensor, alpha: float = 1.0, beta: float = 1.0, gamma: float = 1.0) -> Tensor:
    """x * alpha * exp(-beta * exp(-gamma * x)) in float64, with its limits at both infinities."""
    wide = x.detach().double()
    value = wide * alpha * torch.exp(-beta * torch.exp(-gamma * wide))
    return torch.where(wide == -torch.inf, torch.zeros_like(wide), value)


def reference_gradient(x: Tensor, alpha: float = 1.0, beta: float = 1.0, gamma: float = 1.0) -> Tensor:
    """The derivative in float64, with its limits 0 and alpha."""
    wide = x.detach().double()
    decay = beta * torch.exp(-gamma * wide)
    gate = alpha * torch.exp(-decay)
    value = gate * (1 + gamma * wide * decay)
    value = torch.where(gate == 0, torch.zeros_like(value), value)
    value = torch.where(wide == torch.inf, torch.full_like(value, alpha), value)
    return torch.where(wide.isnan(), wide, value)


def ulp_error(value: Tensor, reference: Tensor) -> Tensor:
    """|value - reference| in units of the last place of the float32 nearest to the reference."""
    nearest = reference.float().abs()
    ulp = torch.nextafter(nearest, torch.full_like(nearest, torch.inf)).double() - nearest.double()
    return (value.double() - reference).abs() / ulp


def golu_gradient(function, x: Tensor) -> Tensor:
    """The gradient of the sum of function(x) by autograd."""
    leaf = x.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(leaf).sum(), leaf)
    return gradient
