"""`GoLU` as a module.

Without `from __future__ import annotations`, since TorchScript reads the annotations themselves.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from .expression import golu_expression
from .functional import golu
from .parameters import check_parameter


class GoLU(nn.Module):
    """The Gompertz Linear Unit, `x * alpha * exp(-beta * exp(-gamma * x))`; see `golu_core.golu`.

    Args:
        alpha, beta, gamma: the gate's height, shift and steepness, each from 1e-6 to 1e6; ValueError when one is set to
            anything else. They are settings, not weights: the state dict is empty.
        inplace: has no effect; libraries such as timm and torchvision pass it to every activation.
    """

    __jit_unused_properties__: ClassVar[list[str]] = ["alpha", "beta", "gamma"]

    _alpha: float
    _beta: float
    _gamma: float

    def __init__(self, alpha: float = 1.0, beta: float = 1.0, gamma: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha = alpha
        self.beta = beta
        self.gamma = gamma

    @property
    def alpha(self) -> float:
        """Height of the gate, and slope far to the right."""
        return self._alpha

    @alpha.setter
    def alpha(self, value: float) -> None:
        self._alpha = check_parameter("alpha", value)

    @property
    def beta(self) -> float:
        """Shift of the gate along x, as its logarithm over gamma."""
        return self._beta

    @beta.setter
    def beta(self, value: float) -> None:
        self._beta = check_parameter("beta", value)

    @property
    def gamma(self) -> float:
        """Steepness of the gate."""
        return self._gamma

    @gamma.setter
    def gamma(self, value: float) -> None:
        self._gamma = check_parameter("gamma", value)

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return golu_expression(x, self._alpha, self._beta, self._gamma)
        return golu(x, self._alpha, self._beta, self._gamma)

    def extra_repr(self) -> str:
        return f"alpha={self._alpha:g}, beta={self._beta:g}, gamma={self._gamma:g}"
