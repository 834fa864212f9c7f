"""Norms of gradient, weights, and update: the first thing to check when a run diverges."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


def _total_norm(tensors: Iterable[Tensor]) -> Tensor:
    """Return the Euclidean norm over all elements of tensors, sharded or not, as a scalar on their device."""
    norm = nn.utils.get_total_norm(list(tensors))
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


class StepNorms:
    """Norms around one optimizer step.

    The weights are copied before the step, when the memory of the forward pass has been freed.

    Args:
        parameters: The model's parameters, with gradients; frozen ones are ignored.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._before = [parameter.detach().clone() for parameter in self._parameters]

    def gradient(self) -> Tensor:
        """Return the norm of the current gradient, a scalar."""
        return _total_norm(parameter.grad for parameter in self._parameters if parameter.grad is not None)

    @torch.no_grad()
    def after_step(self, gradient: Tensor) -> dict[str, Tensor]:
        """Return `grad_norm`, `weight_norm`, and `update_norm` after the step: scalars on the device.

        Args:
            gradient: The norm of the gradient before clipping, a scalar.
        """
        updates = [now - before for now, before in zip(self._parameters, self._before, strict=True)]
        whole = gradient.full_tensor() if isinstance(gradient, DTensor) else gradient
        return {"grad_norm": whole, "weight_norm": _total_norm(self._parameters), "update_norm": _total_norm(updates)}
