"""`GoLU` as a module.

Without `from __future__ import annotations`, since TorchScript reads the annotations themselves.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from .compute.expression import golu_expression
from .compute.parameters import check_parameter
from .functional import gated_golu, golu

LEARNED = ("alpha", "beta", "gamma")
_UNSIZED = (
    "this GoLU learns parameters for each channel, but the number of channels is not known yet: call "
    "size_per_channel(model, example_inputs), or pass example_inputs to replace_activations"
)


class GoLU(nn.Module):
    """The Gompertz Linear Unit, `x * alpha * exp(-beta * exp(-gamma * x))`, as a module; see `golu_core.golu`.

    Args:
        alpha, beta, gamma: The gate's height, shift and steepness, each from 1e-6 to 1e6. They are settings, not
            weights, so the state dict is empty.
        inplace: A flag without effect; libraries such as timm and torchvision pass it to every activation.
        learnable: Whether alpha, beta and gamma are weights that start at the given values. The optimizer moves their
            logarithms, so that they stay positive and a step changes each by a fraction of its value.
        per_channel: Whether each channel has its own three weights. `size_per_channel` finds the number of channels in
            a forward pass, `replace_activations` from its example inputs, and `load_state_dict` from what it loads.
        shape: The shape of each learned parameter, which broadcasts to x's: `(64, 1, 1)` for 64 channels of images,
            `(512,)` for features in the last dimension. Pass it instead of `per_channel`.

    Raises:
        ValueError: A parameter is out of its range, or `per_channel` or `shape` is passed without `learnable`.

    Examples:
        >>> from torch import nn
        >>> from golu_core import GoLU
        >>> nn.Sequential(nn.Linear(4, 8), GoLU(), nn.Linear(8, 8), GoLU(beta=0.5, learnable=True))
        Sequential(
          (0): Linear(in_features=4, out_features=8, bias=True)
          (1): GoLU(alpha=1, beta=1, gamma=1)
          (2): Linear(in_features=8, out_features=8, bias=True)
          (3): GoLU(alpha=1, beta=0.5, gamma=1, learnable)
        )
    """

    __jit_unused_properties__: ClassVar[list[str]] = ["alpha", "beta", "gamma", "is_sized"]

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
        per_channel: bool = False,
        shape: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if (per_channel or shape) and not learnable:
            raise ValueError("per-channel parameters of GoLU are always learned: add learnable=True")
        self.learnable = learnable
        self.per_channel = per_channel or bool(shape)
        if learnable:
            unsized = self.per_channel and not shape
            for name in LEARNED:
                parameter: Any = UninitializedParameter() if unsized else nn.Parameter(torch.zeros(tuple(shape)))
                self.register_parameter(f"log_{name}", parameter)
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

    @property
    def is_sized(self) -> bool:
        """Whether the shape of what is learned is known; always, where nothing is."""
        return not self.learnable or not isinstance(self.log_alpha, UninitializedParameter)

    def set_shape(self, shape: Sequence[int]) -> None:
        """Gives each learned parameter its shape, and its value to all of its elements.

        Args:
            shape: A shape that broadcasts to x's.

        Raises:
            ValueError: nothing is learned, or the shape is known already.
        """
        if self.is_sized:
            raise ValueError("this GoLU already has a shape")
        for name in LEARNED:
            parameter = getattr(self, f"log_{name}")
            parameter.materialize(tuple(shape))
            self._set(name, getattr(self, f"_{name}"))

    def __setstate__(self, state: Any) -> None:
        restore: Any = super().__setstate__
        restore({"learnable": False, "per_channel": False} | state)  # what 0.1 pickled has neither

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        found = state_dict.get(f"{prefix}log_alpha")
        if found is not None and not self.is_sized:
            self.set_shape(found.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        if self.is_sized:
            super()._save_to_state_dict(destination, prefix, keep_vars)
            return
        for name in LEARNED:  # loaders ask a new model for its names; without values, nothing can be saved of these
            destination[f"{prefix}log_{name}"] = torch.empty(0, device="meta")

    @torch.jit.unused
    def _now(self, name: str) -> float:
        if not self.learnable:
            return float(getattr(self, f"_{name}"))
        if self.per_channel:
            raise ValueError(f"this GoLU has {name} for each channel: read log_{name}.exp()")
        return float(getattr(self, f"log_{name}").detach().exp())

    @torch.jit.unused
    def _set(self, name: str, value: float) -> float:
        checked = check_parameter(name, value)
        if self.learnable and self.is_sized:
            with torch.no_grad():
                getattr(self, f"log_{name}").fill_(math.log(checked))
        return checked

    def forward(self, x: Tensor, gated: Tensor | None = None) -> Tensor:
        """GoLU of x, any shape, and times `gated` of the same shape if that is given, by `gated_golu`."""
        if torch.jit.is_scripting():
            assert not self.learnable, "TorchScript supports GoLU only with fixed parameters"
            y = golu_expression(x, self._alpha, self._beta, self._gamma)
            return y if gated is None else y * gated
        if self.learnable:
            if not self.is_sized:
                raise ValueError(_UNSIZED)
            alpha, beta, gamma = (getattr(self, f"log_{name}").exp() for name in LEARNED)
            learned = golu(x, alpha, beta, gamma)
            return learned if gated is None else learned * gated
        if gated is None:
            return golu(x, self._alpha, self._beta, self._gamma)
        return gated_golu(x, gated, self._alpha, self._beta, self._gamma)

    def extra_repr(self) -> str:
        if self.per_channel:
            known = f"shape={tuple(self.get_parameter('log_alpha').shape)}" if self.is_sized else "per_channel=True"
            return f"learnable, {known}"
        learned = ", learnable" if self.learnable else ""
        return f"alpha={self.alpha:g}, beta={self.beta:g}, gamma={self.gamma:g}{learned}"


def gated(activation: nn.Module, gate: Tensor, up: Tensor) -> Tensor:
    """Compute `activation(gate) * up`. GoLU fuses both, and saves two tensors for the backward pass instead of three.

    Args:
        activation: Any activation module.
        gate, up: Tensors of one shape, dtype and device, such as the halves of one linear layer's output.

    Examples:
        >>> import torch
        >>> from golu_core.activation import GoLU, gated
        >>> gate, up = torch.tensor([[-1.0, 2.0, 3.0, 0.5]]).chunk(2, -1)
        >>> gated(GoLU(), gate, up), gated(torch.nn.ReLU(), gate, up)
        (tensor([[-0.1980,  0.8734]]), tensor([[0., 1.]]))
    """
    if type(activation) is GoLU:
        fused: Tensor = activation(gate, up)
        return fused
    y: Tensor = activation(gate) * up
    return y
