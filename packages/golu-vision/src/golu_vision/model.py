"""Builds a recipe's network with the run's activation in it."""

from __future__ import annotations

import copy
import difflib
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from golu_core.training import Purpose, RequestError, SwappedActivations, seed_global_generators, swapped_for

from .cifar import CIFAR_MODELS
from .config import Data, Model, VisionConfig
from .mlp import build_mlp


def check_model_name(model: Model) -> None:
    """Raises RequestError for a name that no library knows, before anything is written."""
    library, _, name = model.name.partition("/")
    if library == "torchvision":
        import torchvision

        known = torchvision.models.list_models(module=torchvision.models)  # the classifiers
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
        return CIFAR_MODELS[name](classes, model.head_bias)
    if library == "mlp":
        return build_mlp(name, data, classes)
    rates = {"drop_rate": model.drop, "drop_path_rate": model.drop_path}
    asked = {"num_classes": classes, **{key: value for key, value in rates.items() if value}}
    network: nn.Module
    try:
        if library == "torchvision":
            import torchvision

            network = torchvision.models.get_model(name, weights=None, **asked)
        else:
            import timm

            network = timm.create_model(name, pretrained=False, **asked)
    except Exception as error:  # each network has its own, such as for an argument that it lacks
        raise RequestError(f"{library} cannot build {name} with {asked}: {_first_line(error)}") from None
    return network


def build_model(config: VisionConfig, classes: int) -> tuple[nn.Module, SwappedActivations]:
    """The network with the run's activation, its weights a function of the seed alone.

    Returns:
        The network, and how many activations were swapped and which functional calls were left as published.
    """
    seed_global_generators(config.seed, Purpose.WEIGHTS)
    network = build_network(config.model, classes, config.data)
    example = (torch.zeros(1, 3, config.data.size, config.data.size),)
    return network, swapped_for(network, config.model.default_activation, config.activation, example)


def check_network(network: nn.Module, config: VisionConfig, images: int, classes: int) -> None:
    """Raise RequestError unless a network can be trained on the run's images and returns a logit for each class.

    Args:
        network: With the run's activation; is not changed.
        config: Of the run, for the size of the images.
        images: The size N of a micro-batch.
        classes: How many classes the data has.
    """
    size = config.data.size
    asked = f"{images} image{'s' * (images > 1)} of {size} x {size} pixels"
    try:
        count, logits = _logits_in_training(network, images, size)
    except Exception as error:  # each network has its own
        raise RequestError(
            f"{config.model.name} cannot be trained on micro-batches of {asked} ({_first_line(error)}): "
            f"change --data.size, --batch-size or --micro-batch-size"
        ) from None
    if not isinstance(logits, Tensor) or logits.shape != (count, classes):
        found = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise RequestError(
            f"{config.model.name} is not a classifier for {classes} classes: for {count} images it returns {found} "
            f"instead of shape {(count, classes)}"
        )


def _logits_in_training(network: nn.Module, images: int, size: int) -> tuple[int, Any]:
    """What a network returns in training mode, and for how many images.

    On the meta device a forward pass takes no memory and little time. What fails there is tried on a few real images.
    """
    was_training = network.training
    tensors = chain(network.named_parameters(remove_duplicate=False), network.named_buffers(remove_duplicate=False))
    shapes = {name: tensor.detach().to("meta") for name, tensor in tensors}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            network.train()
            batch = torch.zeros(images, 3, size, size, device="meta")
            return images, torch.func.functional_call(network, shapes, (batch,))
        except Exception:
            few = min(images, 2)  # batch norm needs two values, where a micro-batch has them
            return few, copy.deepcopy(network)(torch.zeros(few, 3, size, size))
        finally:
            network.train(was_training)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
