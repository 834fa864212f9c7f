"""The run's activation in the architecture's network, and what a result says of that."""

from __future__ import annotations

import math
import statistics
from typing import Any

from torch import nn

from golu_core.activation import GoLU, find_activations, replace_activations
from golu_core.activation.modules import LEARNED
from golu_core.activation.names.registry import ACTIVATIONS, canonical_name

from ..messages.errors import RequestError
from ..runs.results import SwappedActivations


def learned_parameters(model: nn.Module) -> dict[str, Any]:
    """Mean and range of the alpha, beta and gamma that a model's GoLU modules have learned; empty where none learns."""
    modules = [module for module in model.modules() if isinstance(module, GoLU) and module.learnable]
    if not modules:
        return {}
    found = {}
    for name in LEARNED:
        logarithms = [getattr(module, f"log_{name}").detach() for module in modules]
        whole = [t.full_tensor() if hasattr(t, "full_tensor") else t for t in logarithms]  # of sharded weights
        values = [math.exp(value) for t in whole for value in t.flatten().tolist()]
        found[name] = {"mean": statistics.fmean(values), "least": min(values), "most": max(values)}
    return {"learned_activation": found}


def swapped_for(
    network: nn.Module, own: str, activation: str, example_inputs: tuple[Any, ...] | None = None
) -> SwappedActivations:
    """Put the run's activation into a network in place of its default one, and return what was swapped and left.

    Args:
        network: The network, which is changed in place.
        own: The default activation of the network as published.
        activation: The run's activation. If it is the default one, its modules are only looked for.
        example_inputs: The arguments of one forward pass.

    Raises:
        RequestError: The network has no module of its default activation, or never calls one, so that the result would
            be wrong about it; or it has no place for parameters of each channel.

    Examples:
        >>> import torch
        >>> from golu_core.training import swapped_for
        >>> network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> swapped_for(network, "relu", "golu", (torch.zeros(1, 4),))
        SwappedActivations(swapped=1, left=[], untraced='')
    """
    try:
        own = canonical_name(own)
        if own not in ACTIVATIONS:
            raise ValueError(f"{own!r} is not a plain name of the registry")
    except ValueError as error:
        raise RequestError(f"--model.default-activation: {error}") from None
    if own == activation:
        report = find_activations(network, own, example_inputs=example_inputs)
    else:
        try:
            report = replace_activations(network, own, activation, example_inputs=example_inputs)
        except ValueError as error:
            raise RequestError(f"--activation {activation}: {error}") from error
    if not report.swapped:
        there = ", ".join(f"{count} {name}" for name, count in report.others)
        raise RequestError(
            f"the network has no {own} to replace by {activation}{f', but {there}' if there else ''}: "
            f"--model.default-activation must name an activation that it has"
        )
    if set(report.uncalled) == set(report.swapped):
        raise RequestError(
            f"the network's forward pass never calls its modules of {own}, such as {report.swapped[0]}: "
            f"with {activation} it would be the same network"
        )
    left = None if report.left is None else [str(call) for call in report.left]
    return SwappedActivations(0 if own == activation else len(report.swapped), left, report.untraced)
