"""Models of Hugging Face's transformers: their configs, weights, and names of activations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from golu_core.activation.names.hugging_face import register_with_transformers

from ..messages.errors import RequestError
from ..storage.user_folders import check_files
from .given_weights import GivenWeights

_THEIR_NAMES = {"gelu_tanh": "gelu_new", "swish": "silu"}


def transformers_library():  # type: ignore[no-untyped-def]  # a module, imported only where it is needed
    """Return the module `transformers`; RequestError where it is not installed."""
    try:
        import transformers
        import transformers.activations
    except ImportError:
        raise RequestError("this needs transformers: pip install 'golu-lm[transformers]'") from None
    return transformers


def transformers_config(source: str, what: str) -> Any:
    """Return the config of a Hugging Face model; RequestError where there is none.

    Args:
        source: A folder that `save_pretrained` wrote, or a name on the Hub.
        what: The expected kind of model, such as `GPT-2`.
    """
    transformers = transformers_library()
    if Path(source).is_dir():
        check_files(Path(source))
    try:
        return transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # the hub, the network and the file formats have their own
        raise RequestError(f"transformers cannot load a {what} from {source!r}: {str(error)[:300]}") from None


def transformers_activation(activation: str) -> str:
    """Return the name of an activation in transformers, which then also knows `golu`; RequestError if it has none."""
    name = _THEIR_NAMES.get(activation, activation)
    register_with_transformers()
    if name not in transformers_library().activations.ACT2FN:
        raise RequestError(f"transformers has no activation {activation!r}, so its model cannot be built with it")
    return name


def activation_of(source: str) -> str:
    """Return our name of a Hugging Face model's activation, or theirs where we have none."""
    theirs = str(transformers_config(source, "model").activation_function)
    ours = {name: own for own, name in _THEIR_NAMES.items()}
    return ours.get(theirs, theirs)


def transformers_weights(
    source: str, name: str, build: Callable[[], nn.Module], load: Callable[[Any, str], None]
) -> GivenWeights:
    """Return the weights of a Hugging Face model under our names.

    Args:
        source: The model, as passed on the command line.
        name: A folder that `save_pretrained` wrote, or a name on the Hub.
        build: The function that builds this project's network with the same sizes.
        load: The function that loads the weights of `name` into the network.

    Raises:
        RequestError: The model cannot be loaded, or has other sizes.
    """
    with torch.random.fork_rng(devices=[]):  # the weights that are overwritten cost no random number of the run
        network = build()
    load(network, name)
    return GivenWeights(source, network.state_dict(), activation_of(name))
