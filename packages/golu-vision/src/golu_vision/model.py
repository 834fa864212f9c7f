"""Build a recipe's model with the run's activation."""

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
    """Raise RequestError for an unknown model name, before anything is written."""
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
        raise RequestError(f"unknown model {model.name!r}: the library must be torchvision, timm, cifar, or mlp")
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f", did you mean {library}/{near[0]}?" if near else ""
        raise RequestError(f"unknown model {model.name!r}{hint}")


def build_network(model: Model, classes: int, data: Data) -> nn.Module:
    """Build the published network, with weights drawn from torch's global generator.

    Raises:
        RequestError: The name is unknown, or the library cannot build the model with these arguments.
    """
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
    except Exception as error:  # each network raises its own type, for example for an argument it does not accept
        raise RequestError(f"{library} cannot build {name} with {asked}: {_first_line(error)}") from None
    return network


def build_model(config: VisionConfig, classes: int) -> tuple[nn.Module, SwappedActivations]:
    """Build the model with the run's activation. Its weights depend only on the seed.

    The model, and a summary of the swap: the number of replaced activations, and the functional calls that keep the
        published activation.
    """
    seed_global_generators(config.seed, Purpose.WEIGHTS)
    network = build_network(config.model, classes, config.data)
    example = (torch.zeros(1, 3, config.data.size, config.data.size),)
    return network, swapped_for(network, config.model.default_activation, config.activation, example)


def check_network(network: nn.Module, config: VisionConfig, images: int, classes: int) -> None:
    """Raise RequestError unless the model can be trained on the run's images and returns one logit per class.

    Args:
        network: The model with the run's activation. It is not changed.
        config: The run's configuration, for the size of the images.
        images: The micro-batch size N.
        classes: The number of classes in the data set.
    """
    size = config.data.size
    asked = f"{images} image{'s' * (images > 1)} of {size} x {size} pixels"
    try:
        count, logits = _logits_in_training(network, images, size)
    except Exception as error:  # each network raises its own type
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
    """Return the batch size and the output of a forward pass in training mode.

    On the meta device a forward pass needs no memory and little time. If a model fails there, the pass is repeated on
    one or two real images.
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
            few = min(images, 2)  # two, because batch norm on a 1 x 1 map cannot normalize a single value
            return few, copy.deepcopy(network)(torch.zeros(few, 3, size, size))
        finally:
            network.train(was_training)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
