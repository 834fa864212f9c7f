"""Activations by name: what the command lines take, what results store, what `replace_activations` looks for.

Importing this module does not import torch: a command line that only checks a name stays fast.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Activation:
    """One activation function.

    Attributes:
        paper_name: how tables write it.
        build: makes the module.
        classes: dotted names of module classes that compute it, in torch and in libraries that bring their own.
        functions: names under which torch calls it, in `torch`, `torch.nn.functional` or as a method.
        is_gate: it also serves as a gate (squeeze-and-excitation, LSTM), where it is no activation to swap.
    """

    paper_name: str
    build: Callable[[], nn.Module]
    classes: tuple[str, ...]
    functions: tuple[str, ...] = ()
    is_gate: bool = False


def _torch_module(name: str, **arguments: object) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        from torch import nn

        module: nn.Module = getattr(nn, name)(**arguments)
        return module

    return build


def _golu_module() -> nn.Module:
    from .modules import GoLU

    return GoLU()


def _nn(*names: str) -> tuple[str, ...]:
    return tuple(f"torch.nn.modules.activation.{name}" for name in names)


def _timm(*names: str) -> tuple[str, ...]:
    return tuple(f"timm.layers.{module}.{name}" for name in names for module in ("activations", "activations_me"))


def _hugging_face(*names: str) -> tuple[str, ...]:
    return tuple(f"transformers.activations.{name}" for name in names)


_EXACT_GELU = (*_nn("GELU"), *_timm("GELU"), *_hugging_face("GELUActivation"))
_TANH_GELU = (
    *_timm("GELUTanh"),
    *_hugging_face("NewGELUActivation", "PytorchGELUTanh", "GELUTanh", "FastGELUActivation", "QuickGELUActivation"),
)

ACTIVATIONS: dict[str, Activation] = {
    "golu": Activation("GoLU", _golu_module, ("golu_core.activation.modules.GoLU",)),
    "relu": Activation("ReLU", _torch_module("ReLU"), _nn("ReLU"), ("relu", "relu_")),
    "leaky_relu": Activation("LeakyReLU", _torch_module("LeakyReLU"), _nn("LeakyReLU"), ("leaky_relu", "leaky_relu_")),
    "elu": Activation("ELU", _torch_module("ELU"), _nn("ELU"), ("elu", "elu_")),
    "gelu": Activation("GELU", _torch_module("GELU"), (*_EXACT_GELU, *_TANH_GELU), ("gelu",)),
    "gelu_tanh": Activation("GELU (tanh)", _torch_module("GELU", approximate="tanh"), _TANH_GELU),
    "swish": Activation(
        "Swish",
        _torch_module("SiLU"),
        (*_nn("SiLU"), *_timm("Swish", "SwishMe"), *_hugging_face("SiLUActivation")),
        ("silu",),
    ),
    "mish": Activation(
        "Mish", _torch_module("Mish"), (*_nn("Mish"), *_timm("Mish"), *_hugging_face("MishActivation")), ("mish",)
    ),
    "selu": Activation("SELU", _torch_module("SELU"), _nn("SELU"), ("selu", "selu_")),
    "celu": Activation("CELU", _torch_module("CELU"), _nn("CELU"), ("celu", "celu_")),
    "prelu": Activation("PReLU", _torch_module("PReLU"), (*_nn("PReLU"), *_timm("PReLU")), ("prelu",)),
    "softplus": Activation("Softplus", _torch_module("Softplus"), _nn("Softplus"), ("softplus",)),
    "softsign": Activation("Softsign", _torch_module("Softsign"), _nn("Softsign"), ("softsign",)),
    "sigmoid": Activation(
        "Sigmoid", _torch_module("Sigmoid"), (*_nn("Sigmoid"), *_timm("Sigmoid")), ("sigmoid", "sigmoid_"), is_gate=True
    ),
    "tanh": Activation("Tanh", _torch_module("Tanh"), (*_nn("Tanh"), *_timm("Tanh")), ("tanh", "tanh_"), is_gate=True),
}

ALIASES = {"silu": "swish", "leakyrelu": "leaky_relu", "gelu_new": "gelu_tanh"}


def canonical_name(name: str) -> str:
    """The name under which results store an activation: lower case, aliases resolved.

    Raises:
        ValueError: there is no such activation; the message has the nearest name.
    """
    lower = name.strip().lower().replace("-", "_")
    lower = ALIASES.get(lower, lower)
    if lower in ACTIVATIONS:
        return lower
    nearest = difflib.get_close_matches(lower, [*ACTIVATIONS, *ALIASES], n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    raise ValueError(f"unknown activation {name!r}: {hint}known are {', '.join(ACTIVATIONS)}")


def build_activation(name: str) -> nn.Module:
    """A new module of the named activation, with the library's default settings; ValueError for an unknown name."""
    return ACTIVATIONS[canonical_name(name)].build()
