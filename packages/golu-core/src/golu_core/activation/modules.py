"""`GoLU` as a module.

Without `from __future__ import annotations`, since TorchScript reads the annotations themselves.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from .expression import golu_expression
from .functional import gated_golu, golu
from .parameters import check_parameter

LEARNED = ("alpha", "beta", "gamma")


class GoLU(nn.Module):
    """The Gompertz Linear Unit, `x * alpha * exp(-beta * exp(-gamma * x))`; see `golu_core.golu`.

    Args:
        alpha, beta, gamma: the gate's height, shift and steepness, each from 1e-6 to 1e6; ValueError when one is set to
            anything else. They are settings, not weights: the state dict is empty.
        inplace: has no effect; libraries such as timm and torchvision pass it to every activation.
        learnable: alpha, beta and gamma are weights, which begin at the values that are given. Their logarithms are
            what the optimizer moves, so that they stay positive, and a step changes each by a share of itself.
    """

    __jit_unused_properties__: ClassVar[list[str]] = ["alpha", "beta", "gamma"]

    _alpha: float
    _beta: float
    _gamma: float

    def __init__(
        self,
        alpha: float = 1.0,
        beta: float = 1.0,
        gamma: float = 1.0,
        inplace: bool = False,
        learnable: bool = False,
    ) -> None:
        super().__init__()
        self.learnable = learnable
        if learnable:
            for name in LEARNED:
                self.register_parameter(f"log_{name}", nn.Parameter(torch.zeros(())))
        self.alpha = alpha
        self.beta = beta
        self.gamma = gamma

    @property
    def alpha(self) -> float:
        """Height of the gate, and slope far to the right."""
        return self._now("alpha")

    @alpha.setter
    def alpha(self, value: float) -> None:
        self._alpha = self._set("alpha", value)

    @property
    def beta(self) -> float:
        """Shift of the gate along x, as its logarithm over gamma."""
        return self._now("beta")

    @beta.setter
    def beta(self, value: float) -> None:
        self._beta = self._set("beta", value)

    @property
    def gamma(self) -> float:
        """Steepness of the gate."""
        return self._now("gamma")

    @gamma.setter
    def gamma(self, value: float) -> None:
        self._gamma = self._set("gamma", value)

    @torch.jit.unused
    def _now(self, name: str) -> float:
        if not self.learnable:
            return float(getattr(self, f"_{name}"))
        return float(getattr(self, f"log_{name}").detach().exp())

    @torch.jit.unused
    def _set(self, name: str, value: float) -> float:
        checked = check_parameter(name, value)
        if self.learnable:
            with torch.no_grad():
                getattr(self, f"log_{name}").fill_(math.log(checked))
        return checked

    def forward(self, x: Tensor, gated: Tensor | None = None) -> Tensor:
        """GoLU of x, any shape, and times `gated` of the same shape if that is given, by `gated_golu`."""
        if torch.jit.is_scripting():
            assert not self.learnable, "TorchScript takes GoLU with fixed parameters only"
            y = golu_expression(x, self._alpha, self._beta, self._gamma)
            return y if gated is None else y * gated
        if self.learnable:
            alpha, beta, gamma = (getattr(self, f"log_{name}").exp() for name in LEARNED)
            learned = golu(x, alpha, beta, gamma)
            return learned if gated is None else learned * gated
        if gated is None:
            return golu(x, self._alpha, self._beta, self._gamma)
        return gated_golu(x, gated, self._alpha, self._beta, self._gamma)

    def extra_repr(self) -> str:
        learned = ", learnable" if self.learnable else ""
        return f"alpha={self.alpha:g}, beta={self.beta:g}, gamma={self.gamma:g}{learned}"


def gated(activation: nn.Module, gate: Tensor, up: Tensor) -> Tensor:
    """`activation(gate) * up`; GoLU does both at once, and keeps two tensors for the backward pass instead of three.

    Args:
        activation: any activation module.
        gate, up: of one shape, dtype and device, such as halves of one linear layer's output.
    """
    if type(activation) is GoLU:
        fused: Tensor = activation(gate, up)
        return fused
    y: Tensor = activation(gate) * up
    return y
