"""Activations by name: what the command lines take, what results store, what `replace_activations` looks for.

Importing this module does not import torch: a command line that only checks a name stays fast.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from .specs import ActivationSpec, parse_spec

if TYPE_CHECKING:
    from torch import nn

LOADED_MARK = "_golu_activation"
"""The attribute under which modules that are not built in have their activation's name."""
GROUP = "golu.activations"
"""The entry points under which packages register their activations: a name, and a class or function."""


@dataclass(frozen=True)
class Activation:
    """One activation function.

    Attributes:
        paper_name: how tables write it.
        build: makes the module, with parameters by their names.
        classes: dotted names of module classes that compute it, in torch and in libraries that bring their own.
        functions: names under which torch calls it, in `torch`, `torch.nn.functional` or as a method.
        is_gate: it also serves as a gate (squeeze-and-excitation, LSTM), where it is no activation to swap.
        parameters: The parameters of `build`, with their defaults.
    """

    paper_name: str
    build: Callable[..., nn.Module]
    classes: tuple[str, ...]
    functions: tuple[str, ...] = ()
    is_gate: bool = False
    parameters: Mapping[str, float | bool] = field(default_factory=dict)


def _torch_module(name: str, **fixed: object) -> Callable[..., nn.Module]:
    def build(**parameters: object) -> nn.Module:
        from torch import nn

        module: nn.Module = getattr(nn, name)(**fixed, **parameters)
        return module

    return build


def _own_module(name: str, home: str = "golu_core.activation.names.published") -> Callable[..., nn.Module]:
    def build(**parameters: object) -> nn.Module:
        from importlib import import_module

        module: nn.Module = getattr(import_module(home), name)(**parameters)
        return module

    return build


def _nn(*names: str) -> tuple[str, ...]:
    return tuple(f"torch.nn.modules.activation.{name}" for name in names)


def _timm(*names: str) -> tuple[str, ...]:
    return tuple(f"timm.layers.{module}.{name}" for name in names for module in ("activations", "activations_me"))


def _ours(name: str) -> tuple[str, ...]:
    return (f"golu_core.activation.names.published.{name}",)


def _hugging_face(*names: str) -> tuple[str, ...]:
    return tuple(f"transformers.activations.{name}" for name in names)


_EXACT_GELU = (*_nn("GELU"), *_timm("GELU"), *_hugging_face("GELUActivation"))
_TANH_GELU = (
    *_timm("GELUTanh"),
    *_hugging_face("NewGELUActivation", "PytorchGELUTanh", "GELUTanh", "FastGELUActivation", "AccurateGELUActivation"),
)

ACTIVATIONS: dict[str, Activation] = {
    "golu": Activation(
        "GoLU",
        _own_module("GoLU", "golu_core.activation.modules"),
        ("golu_core.activation.modules.GoLU",),
        parameters={"alpha": 1.0, "beta": 1.0, "gamma": 1.0, "learnable": False, "per_channel": False},
    ),
    "relu": Activation("ReLU", _torch_module("ReLU"), _nn("ReLU"), ("relu", "relu_")),
    "leaky_relu": Activation(
        "LeakyReLU",
        _torch_module("LeakyReLU"),
        _nn("LeakyReLU"),
        ("leaky_relu", "leaky_relu_"),
        parameters={"negative_slope": 0.01},
    ),
    "elu": Activation("ELU", _torch_module("ELU"), _nn("ELU"), ("elu", "elu_"), parameters={"alpha": 1.0}),
    "gelu": Activation("GELU", _torch_module("GELU"), (*_EXACT_GELU, *_TANH_GELU), ("gelu",)),
    "gelu_tanh": Activation("GELU (tanh)", _torch_module("GELU", approximate="tanh"), _TANH_GELU),
    "quick_gelu": Activation(
        "QuickGELU",
        _own_module("QuickGELU"),
        (*_ours("QuickGELU"), *_timm("QuickGELU"), *_hugging_face("QuickGELUActivation")),
    ),
    "swish": Activation(
        "Swish",
        _torch_module("SiLU"),
        (*_nn("SiLU"), *_timm("Swish", "SwishMe"), *_hugging_face("SiLUActivation")),
        ("silu",),
    ),
    "mish": Activation(
        "Mish",
        _torch_module("Mish"),
        (*_nn("Mish"), *_timm("Mish", "MishMe"), *_hugging_face("MishActivation")),
        ("mish",),
    ),
    "selu": Activation("SELU", _torch_module("SELU"), _nn("SELU"), ("selu", "selu_")),
    "celu": Activation("CELU", _torch_module("CELU"), _nn("CELU"), ("celu", "celu_"), parameters={"alpha": 1.0}),
    "prelu": Activation(
        "PReLU", _torch_module("PReLU"), (*_nn("PReLU"), *_timm("PReLU")), ("prelu",), parameters={"init": 0.25}
    ),
    "softplus": Activation(
        "Softplus",
        _torch_module("Softplus"),
        _nn("Softplus"),
        ("softplus",),
        parameters={"beta": 1.0, "threshold": 20.0},
    ),
    "softsign": Activation("Softsign", _torch_module("Softsign"), _nn("Softsign"), ("softsign",)),
    "sigmoid": Activation(
        "Sigmoid", _torch_module("Sigmoid"), (*_nn("Sigmoid"), *_timm("Sigmoid")), ("sigmoid", "sigmoid_"), is_gate=True
    ),
    "tanh": Activation("Tanh", _torch_module("Tanh"), (*_nn("Tanh"), *_timm("Tanh")), ("tanh", "tanh_"), is_gate=True),
    "relu2": Activation(
        "ReLU²", _own_module("SquaredReLU"), (*_ours("SquaredReLU"), *_hugging_face("ReLUSquaredActivation"))
    ),
    "hard_swish": Activation(
        "Hardswish", _torch_module("Hardswish"), (*_nn("Hardswish"), *_timm("HardSwish", "HardSwishMe")), ("hardswish",)
    ),
    "telu": Activation("TeLU", _own_module("TeLU"), _ours("TeLU")),
    "xielu": Activation(
        "xIELU",
        _own_module("XIELU"),
        (*_ours("XIELU"), *_hugging_face("XIELUActivation")),
        parameters={"alpha_p": 0.8, "alpha_n": 0.8, "beta": 0.5},
    ),
    "smelu": Activation("SmeLU", _own_module("SmeLU"), _ours("SmeLU"), parameters={"beta": 1.0}),
    "logish": Activation("Logish", _own_module("Logish"), _ours("Logish")),
}
"""The built-in activations by name, in the order in which `golu-core activations` lists them.

Examples:
    >>> from golu_core.activation import ACTIVATIONS
    >>> ACTIVATIONS["leaky_relu"].paper_name, dict(ACTIVATIONS["leaky_relu"].parameters)
    ('LeakyReLU', {'negative_slope': 0.01})
"""

ALIASES = {
    "silu": "swish",
    "leakyrelu": "leaky_relu",
    "gelu_new": "gelu_tanh",
    "hardswish": "hard_swish",
    "relu_squared": "relu2",
}


@cache
def registered_elsewhere() -> dict[str, EntryPoint]:
    """What installed packages register under `golu.activations`, by name; names of ours are ours."""
    found = {entry.name.lower().replace("-", "_"): entry for entry in entry_points(group=GROUP)}
    return {name: entry for name, entry in sorted(found.items()) if name not in ACTIVATIONS and name not in ALIASES}


@cache
def canonical_spec(text: str) -> ActivationSpec:
    """Return what a text names, in one spelling; nothing is imported, and each text is parsed once per process.

    Raises:
        ValueError: It names nothing, or a name of the registry with parameters that it does not have.
    """
    spec = parse_spec(text)
    if spec.kind != "name":
        return spec
    name = spec.head.lower().replace("-", "_")
    name = ALIASES.get(name, name)
    if name in ACTIVATIONS:
        return replace(spec, head=name, parameters=_changed_parameters(name, spec.parameters))
    if name in registered_elsewhere():
        return replace(spec, head=name)
    known = [*ACTIVATIONS, *registered_elsewhere()]
    nearest = difflib.get_close_matches(name, [*known, *ALIASES], n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    raise ValueError(
        f"unknown activation {text!r}: {hint}the known ones are {', '.join(known)}; "
        f"to use your own: ./file.py:Name or package.module:Name"
    )


def _changed_parameters(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that differ from the default, as numbers of the default's type."""
    defaults = ACTIVATIONS[name].parameters
    changed = {}
    for key, value in given.items():
        if key not in defaults:
            listed = f"it has {', '.join(defaults)}" if defaults else "it has none"
            raise ValueError(f"{name} has no parameter {key!r}: {listed}")
        default = defaults[key]
        if isinstance(default, bool):
            if not isinstance(value, bool):
                raise ValueError(f"{key} of {name} must be true or false, not {value!r}")
        elif isinstance(value, bool) or not isinstance(value, (int, float)) or not _is_float(value):
            raise ValueError(f"{key} of {name} must be a number, not {value!r}")
        else:
            value = float(value)
        if value != default:
            changed[key] = value
    return changed


def _is_float(value: float) -> bool:
    """Whether a number is finite as a float, which an integer of 400 digits is not."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def canonical_name(text: str) -> str:
    """Return the name under which results store an activation: one spelling, aliases resolved, parameters in order.

    Nothing is imported: whether a file or package has what the text names, only `load_activation` can tell.

    Args:
        text: A name that `build_activation` accepts.

    Raises:
        ValueError: There is no such activation; the message has the nearest name.

    Examples:
        >>> from golu_core.activation import canonical_name
        >>> canonical_name("SiLU"), canonical_name("golu(gamma=2, beta=0.5)")
        ('swish', 'golu(beta=0.5, gamma=2.0)')
    """
    return canonical_spec(text).text


_nothing_loaded = ContextVar("nothing_loaded", default=False)


@contextmanager
def nothing_loaded() -> Iterator[None]:
    """Keeps `build_activation` from running code that nobody has named: what commands run in.

    A command loads what its own command line names. Any other text that reaches a network comes from a file, such as
    the config of a run folder, and a file runs no code.
    """
    token = _nothing_loaded.set(True)
    try:
        yield
    finally:
        _nothing_loaded.reset(token)


def is_nothing_loaded() -> bool:
    """Whether `nothing_loaded` is in effect."""
    return _nothing_loaded.get()
