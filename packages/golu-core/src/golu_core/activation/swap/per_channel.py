"""Finds how many channels each GoLU has that learns parameters for each of them, by one forward pass."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from ..modules import GoLU
from .forward_calls import Inputs, called_with, evaluating

_OF_CHANNELS = (_BatchNorm, nn.GroupNorm, nn.PReLU)
"""Modules whose weights are of the second dimension, by their definition."""
_OF_FEATURES = (nn.Linear, nn.Bilinear, nn.Embedding, nn.EmbeddingBag)
"""Modules whose channels come last, by their definition."""


def size_per_channel(model: nn.Module, example_inputs: Inputs) -> None:
    """Give a model's `GoLU(learnable=True, per_channel=True)` modules their shapes.

    The last layer with weights that ran before a GoLU decides where its channels are: before the spatial dimensions
    after a convolution, batched or not, and last after a linear layer. In tensors of one or two dimensions they are
    last, unless they come from a convolution. The model runs once, without gradients and in evaluation mode. A module
    that is not called in it gets one value of each parameter. Modules that already have their shapes keep them.

    Args:
        model: The model, which is changed in place. Call this before you pass its parameters to an optimizer.
        example_inputs: The positional arguments of one forward pass as a tuple, or its keyword arguments as a dict.

    Raises:
        ValueError: A module is called with several numbers of channels, or it cannot be determined which dimension
            holds them.

    Examples:
        >>> import torch
        >>> from golu_core import GoLU, size_per_channel
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 64, 3), GoLU(learnable=True, per_channel=True))
        >>> size_per_channel(model, (torch.zeros(1, 3, 8, 8),))
        >>> model[1]
        GoLU(learnable, shape=(64, 1, 1))
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
        # the channels' dimension, from the front or -1, and their number
        self._last: dict[int, tuple[int, int]] = {}  # by how many dimensions there are
        self._newest = 1, -1

    def after(self, layer: nn.Module, inputs: Any, output: Any) -> None:
        """A layer with weights has run."""
        weight = layer.weight
        if not (isinstance(output, Tensor) and isinstance(weight, Tensor)) or output.ndim < 2 or not weight.ndim:
            return
        axis = _axis(layer, output, weight)
        if axis is None:
            known = self._last.get(output.ndim)
            if known is None or output.shape[known[0]] != weight.numel():
                return
            axis = known[0]
        self._last[output.ndim] = self._newest = axis, output.shape[axis]

    def before(self, name: str, module: GoLU, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        """A GoLU is called."""
        shape = self._shape(name, inputs[0] if inputs else named["x"])
        known = self._found.setdefault(name, shape)
        if known != shape:
            raise ValueError(
                f"{name} is called with {max(known)} channels and with {max(shape)}, so it cannot have per-channel "
                f"parameters: use golu(learnable=true)"
            )
        if not module.is_sized:
            module.set_shape(shape)

    def _shape(self, name: str, x: Tensor) -> tuple[int, ...]:
        axis, channels = self._last.get(x.ndim, self._newest)
        if x.ndim <= 2 and not (x.ndim in self._last and axis == 0):  # all but an unbatched `Conv1d`'s output
            return (x.shape[-1],) if x.ndim else ()
        if channels != x.shape[axis]:
            raise ValueError(
                f"{name} has an input of shape {tuple(x.shape)}, and its channel dimension is unknown: create it with "
                f"a shape, such as GoLU(learnable=True, shape=(64, 1, 1))"
            )
        return (channels,) if axis == -1 else (channels, *[1] * (x.ndim - 1 - axis))


def _axis(layer: nn.Module, output: Tensor, weight: Tensor) -> int | None:
    """The dimension of a layer's channels in its output, by what the layer is; None where that does not tell.

    A class that is not known is taken for a linear layer or a convolution by the dimensions of its weight, and for a
    norm if only one dimension has as many elements as its weight.
    """
    if isinstance(layer, _OF_FEATURES):
        return -1
    if isinstance(layer, _OF_CHANNELS):
        return 1 if weight.numel() > 1 else None
    if isinstance(layer, _ConvNd):
        return output.ndim - 1 - len(layer.kernel_size)
    if isinstance(layer, _InstanceNorm):
        return output.ndim - int(layer._get_no_batch_dim())  # type: ignore[no-untyped-call]
    if type(layer).forward in (nn.LayerNorm.forward, nn.RMSNorm.forward):
        return -1 if weight.ndim == 1 else None
    if weight.ndim > 1:
        axis = output.ndim - (weight.ndim - 1)  # one for each spatial dimension, one for what comes in, one for these
        return (-1 if weight.ndim == 2 else axis) if axis >= 0 and output.shape[axis] in weight.shape[:2] else None
    fitting = [axis for axis, size in enumerate(output.shape) if size == weight.numel()]
    if len(fitting) != 1:
        return None
    return -1 if fitting[0] == output.ndim - 1 else fitting[0]
