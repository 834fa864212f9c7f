"""Builds a recipe's network with the run's activation in it."""

from __future__ import annotations

import difflib

import torch
from torch import nn

from golu_core.training.activations import swapped_for
from golu_core.training.errors import RequestError
from golu_core.training.results import SwappedActivations
from golu_core.training.seeding import Purpose, seed_global_generators

from .cifar import CIFAR_MODELS
from .config import Data, Model, VisionConfig
from .mlp import build_mlp


def check_model_name(model: Model) -> None:
    """Raises RequestError for a name that no library knows, before anything is written."""
    library, _, name = model.name.partition("/")
    if library == "torchvision":
        import torchvision

        known = torchvision.models.list_models()
    elif library == "timm":
        import timm

        known = timm.list_models()
    elif library == "cifar":
        known = list(CIFAR_MODELS)
    elif library == "mlp":
        build_mlp(name, Data(size=1), 1)
        return
    else:
        raise RequestError(f"there is no model {model.name!r}: its library must be torchvision, timm, cifar or mlp")
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f", did you mean {library}/{near[0]}?" if near else ""
        raise RequestError(f"there is no model {model.name!r}{hint}")


def build_network(model: Model, classes: int, data: Data) -> nn.Module:
    """The network as published, with weights from torch's global generator; RequestError for an unknown name."""
    check_model_name(model)
    library, _, name = model.name.partition("/")
    if library == "cifar":
        return CIFAR_MODELS[name](classes)
    if library == "mlp":
        return build_mlp(name, data, classes)
    network: nn.Module
    if library == "torchvision":
        import torchvision

        network = torchvision.models.get_model(name, weights=None, num_classes=classes)
    else:
        import timm

        rates = {"drop_rate": model.drop, "drop_path_rate": model.drop_path}
        asked = {key: value for key, value in rates.items() if value}
        try:
            network = timm.create_model(name, pretrained=False, num_classes=classes, **asked)
        except TypeError as error:  # of a network that has no such argument
            raise RequestError(f"timm cannot build {name} with {asked}: {error}") from None
    return network


def build_model(config: VisionConfig, classes: int) -> tuple[nn.Module, SwappedActivations]:
    """The network with the run's activation, its weights a function of the seed alone.

    Returns:
        The network, and how many activations were swapped and which functional calls were left as published.
    """
    seed_global_generators(config.seed, Purpose.WEIGHTS)
    network = build_network(config.model, classes, config.data)
    example = (torch.zeros(1, 3, config.data.size, config.data.size),)
    return network, swapped_for(network, config.model.own_activation, config.activation, example)
