"""Finds how many channels each GoLU has that learns parameters for each of them, by one forward pass."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from .calls import Inputs, called_with, evaluating
from .modules import GoLU

_OF_CHANNELS = (_NormBase, nn.GroupNorm)
"""Norms whose weights are of the second dimension; a layer norm's are of whatever is last, or made to be."""


def size_per_channel(model: nn.Module, example_inputs: Inputs) -> None:
    """Gives a model's `GoLU(learnable=True, per_channel=True)` modules their shapes.

    Channels come second after a convolution and last after a linear layer, and in tensors of one or two dimensions.
    The model runs once, without gradients and in evaluation mode. A module that is not called there gets one value of
    each parameter. Modules that have their shapes keep them.

    Args:
        model: is changed in place; before its parameters go to an optimizer.
        example_inputs: positional arguments of one forward pass as a tuple, or keyword arguments as a dict.

    Raises:
        ValueError: one module is called with several numbers of channels, or it cannot be told which dimension they
            are.
    """
    unsized = unsized_modules(model)
    if not unsized:
        return
    shapes = _Shapes()
    handles = []
    for name, module in model.named_modules():
        if name in unsized:
            handles.append(module.register_forward_pre_hook(partial(shapes.before, name), with_kwargs=True))
        elif isinstance(getattr(module, "weight", None), Tensor) and not isinstance(module, torch.jit.ScriptModule):
            handles.append(module.register_forward_hook(shapes.after))
    try:
        with evaluating(model), torch.no_grad():
            called_with(model, example_inputs)
    finally:
        for handle in handles:
            handle.remove()
    for module in unsized.values():
        if not module.is_sized:
            module.set_shape(())


def unsized_modules(model: nn.Module) -> dict[str, GoLU]:
    """The GoLU modules of a model, by name, that do not know how many channels they have."""
    return {name: module for name, module in model.named_modules() if isinstance(module, GoLU) and not module.is_sized}


class _Shapes:
    """The layer with weights that ran last, of those with as many dimensions if there is any, says where they are."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, ...]] = {}
        # the channels' dimension and their number
        self._last: dict[int, tuple[int, int]] = {}  # by how many dimensions there are
        self._newest = 1, -1

    def after(self, layer: nn.Module, inputs: Any, output: Any) -> None:
        """A layer with weights has run."""
        weight = layer.weight
        if not (isinstance(output, Tensor) and isinstance(weight, Tensor)) or output.ndim < 2 or not weight.ndim:
            return
        known = self._last.get(output.ndim)
        if weight.ndim > 1:
            axis = 1 if weight.ndim > 2 else -1
        elif isinstance(layer, _OF_CHANNELS):
            axis = 1
        elif known is not None and output.shape[known[0]] == weight.numel():
            axis = known[0]
        else:
            fitting = [axis for axis in (1, -1) if output.shape[axis] == weight.numel()]
            if len(fitting) != 1:
                return
            (axis,) = fitting
        self._last[output.ndim] = self._newest = axis, output.shape[axis]

    def before(self, name: str, module: GoLU, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        """A GoLU is called."""
        shape = self._shape(name, inputs[0] if inputs else named["x"])
        known = self._found.setdefault(name, shape)
        if known != shape:
            raise ValueError(
                f"{name} is called with {max(known)} channels and with {max(shape)}, so that it cannot have parameters "
                f"of each channel: take golu(learnable=true)"
            )
        if not module.is_sized:
            module.set_shape(shape)

    def _shape(self, name: str, x: Tensor) -> tuple[int, ...]:
        if x.ndim <= 2:
            return (x.shape[-1],) if x.ndim else ()
        axis, channels = self._last.get(x.ndim, self._newest)
        if channels != x.shape[axis]:
            raise ValueError(
                f"it cannot be told which dimension of {tuple(x.shape)} are the channels of {name}: make it with its "
                f"own shape, as GoLU(learnable=True, shape=(64, 1, 1))"
            )
        return (channels,) if axis == -1 else (channels, *[1] * (x.ndim - 2))
