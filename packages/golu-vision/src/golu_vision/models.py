"""Builds a recipe's network with the run's activation in it."""

from __future__ import annotations

import torch
from torch import nn

from golu_core.activation import functional_activations, replace_activations
from golu_core.training.errors import RequestError
from golu_core.training.results import SwappedActivations
from golu_core.training.seeding import seed_global_generators

from .cifar import CIFAR_MODELS
from .config import Model, VisionConfig


def build_network(model: Model, classes: int) -> nn.Module:
    """The network as published, with weights from torch's global generator; RequestError for an unknown name."""
    library, _, name = model.name.partition("/")
    try:
        if library == "torchvision":
            import torchvision

            network: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=classes)
            return network
        if library == "timm":
            import timm

            rates = {"drop_rate": model.drop, "drop_path_rate": model.drop_path}
            created: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes, **rates)
            return created
        if library == "cifar":
            return CIFAR_MODELS[name](classes)
    except (KeyError, ValueError, RuntimeError) as error:
        raise RequestError(f"there is no model {model.name!r}: {error}") from None
    raise RequestError(f"there is no model {model.name!r}: its library must be torchvision, timm or cifar")


def build_model(config: VisionConfig, classes: int) -> tuple[nn.Module, SwappedActivations]:
    """The network with the run's activation, its weights a function of the seed alone.

    Returns:
        The network, and how many activations were swapped and which functional calls were left as published.
    """
    seed_global_generators(config.seed, "weights")
    network = build_network(config.model, classes)
    example = (torch.zeros(1, 3, config.data.size, config.data.size),)
    if config.activation == config.model.own_activation:
        left = functional_activations(network, example)
        swapped = 0
    else:
        report = replace_activations(network, config.model.own_activation, config.activation, example_inputs=example)
        left, swapped = report.left, len(report.swapped)
    return network, SwappedActivations(swapped, [str(call) for call in left or ()])
