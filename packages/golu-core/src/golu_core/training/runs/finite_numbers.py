"""Checks for NaN and infinity in a network's outputs, which would otherwise become black images or empty box lists."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..messages.errors import RunFailure


def finite(values: Tensor, what: str) -> Tensor:
    """Return the values of a network that are about to be written or printed, if all of them are finite.

    Args:
        values: The values, of any shape and dtype.
        what: The name of the values in the message, in the plural, such as `the drawn images`.

    Raises:
        RunFailure: Some are NaN or infinite.
    """
    if not bool(torch.isfinite(values).all()):
        raise not_finite(what)
    return values


def not_finite(what: str) -> RunFailure:
    """Return the failure to raise for numbers that are not finite; `what` is their name in the plural."""
    return RunFailure(
        f"{what} are not finite numbers (NaN or infinity), so they are not written: the run's weights have diverged, "
        f"or its numbers overflow in this precision"
    )


def finite_weights(model: nn.Module, where: object) -> None:
    """Check the weights that were loaded into a network.

    Args:
        model: The network. Buffers may hold infinity, as attention masks do.
        where: The file of the weights, for the message.

    Raises:
        RunFailure: A parameter is NaN or infinite, or a buffer is NaN.
    """
    broken = [name for name, tensor in model.named_parameters() if not bool(torch.isfinite(tensor).all())]
    broken += [name for name, tensor in model.named_buffers() if bool(torch.isnan(tensor).any())]
    if broken:
        named = f"{broken[0]} and {len(broken) - 1:,} other tensors" if len(broken) > 1 else broken[0]
        raise RunFailure(
            f"{where} has weights that are not finite numbers (in {named}): the run has diverged, and nothing can be "
            f"computed with them"
        )


def finite_metrics(metrics: Mapping[str, float]) -> None:
    """Check the metrics of a network before they are printed.

    An infinite perplexity is allowed, because it stands for a finite loss above 700.

    Raises:
        RunFailure: A metric is NaN or infinite.
    """
    broken = [
        name
        for name, value in metrics.items()
        if math.isnan(value) or (math.isinf(value) and not name.endswith("perplexity"))
    ]
    if broken:
        raise not_finite(f"the metrics {', '.join(broken)}")


@contextmanager
def finite_outputs(modules: Iterable[nn.Module], what: str) -> Iterator[None]:
    """Check everything that the given modules return inside the block.

    For networks whose own code drops what is not finite: to torchvision's detectors NaN is an image without objects.

    Args:
        modules: Heads of a network. Their outputs may be tensors, lists, tuples or dictionaries of tensors.
        what: The outputs' name in the message, in the plural.

    Raises:
        RunFailure: An output is NaN or infinite.
    """

    def check(module: nn.Module, inputs: Any, outputs: Any) -> None:
        for tensor in _tensors_in(outputs):
            finite(tensor, what)

    handles = [module.register_forward_hook(check) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tensors_in(values: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested lists, tuples and dictionaries."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, Mapping):
        for value in values.values():
            yield from _tensors_in(value)
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors_in(value)
