"""Activations of the literature that torch does not have, as modules of torch's operations."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_SATURATED = 4.0  # tanh(exp(4)) is 1 in float64, too


class SquaredReLU(nn.Module):
    """`max(x, 0) ** 2`.

    So et al., "Primer: Searching for Efficient Transformers for Language Modeling", 2021, arXiv 2109.08668.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x).square()


class QuickGELU(nn.Module):
    """`x * sigmoid(1.702 * x)`, the coarser of GELU's two approximations, as CLIP has it.

    Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016, arXiv 1606.08415.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class TeLU(nn.Module):
    """`x * tanh(exp(x))`.

    Fernandez and Mali, "TeLU Activation Function for Fast and Stable Deep Learning", 2024, arXiv 2412.20269.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.tanh(torch.exp(x.clamp(max=_SATURATED)))  # the slope of exp would be infinite, and times 0


class Logish(nn.Module):
    """`x * ln(1 + sigmoid(x))`.

    Zhu et al., "Logish: A new nonlinear nonmonotonic activation function for convolutional neural network",
    Neurocomputing 458 (2021).
    """

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.log1p(torch.sigmoid(x))


class SmeLU(nn.Module):
    """`(x + beta) ** 2 / (4 * beta)` between -beta and beta; 0 to the left of it and x to the right.

    Shamir et al., "Real World Large Scale Recommendation Systems Reproducibility and Smooth Activations", 2022, arXiv
    2202.06499: ReLU, smoothed by a box of width 2 beta.

    Args:
        beta: half the width of the smooth part; ValueError unless it is positive.
    """

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        if not beta > 0:
            raise ValueError(f"SmeLU's beta must be positive, not {beta!r}")
        self.beta = beta

    def forward(self, x: Tensor) -> Tensor:
        inside = x.clamp(-self.beta, self.beta)  # outside of which a square could be infinite
        return (inside + self.beta).square() / (4 * self.beta) + (x - self.beta).clamp(min=0)

    def extra_repr(self) -> str:
        return f"beta={self.beta:g}"


class XIELU(nn.Module):
    """xIELU, the integral of an expanded ELU, with two learned parameters.

    `a * x ** 2 + beta * x` for positive x, and `b * (exp(x) - 1 - x) + beta * x` for others, with `a = softplus(p)` and
    `b = beta + softplus(n)`. Huang and Schlag, "Deriving Activation Functions Using Integration", 2024, arXiv
    2411.13010; as transformers has it.

    Args:
        alpha_p, alpha_n: The initial values of a, and of b minus beta.
        beta: the slope at 0.
    """

    def __init__(self, alpha_p: float = 0.8, alpha_n: float = 0.8, beta: float = 0.5) -> None:
        super().__init__()
        if not (alpha_p > 0 and alpha_n > beta):
            raise ValueError(f"xIELU's alpha_p must be positive and its alpha_n above beta, not {alpha_p}, {alpha_n}")
        self.beta = beta
        self.alpha_p = nn.Parameter(_inverse_softplus(alpha_p))
        self.alpha_n = nn.Parameter(_inverse_softplus(alpha_n - beta))

    def forward(self, x: Tensor) -> Tensor:
        a, b = F.softplus(self.alpha_p).to(x.dtype), (self.beta + F.softplus(self.alpha_n)).to(x.dtype)
        left, right = x.clamp(max=0), x.clamp(min=0)  # each side's slope alone, however large the other's would be
        return a * right.square() + b * (torch.expm1(left) - left) + self.beta * x

    def extra_repr(self) -> str:
        return f"beta={self.beta:g}"


def _inverse_softplus(value: float) -> Tensor:
    return torch.log(torch.expm1(torch.tensor([value])))
