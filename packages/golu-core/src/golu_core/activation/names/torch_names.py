"""Which names of torch may be an activation: classes of `torch.nn`, and functions that compute tensors from tensors.

A named function is called with the arguments that stand after its name, and torch also has functions that write files
and run code (`torch.save`, `torch.hub.load`). Only what is listed here is ever looked up, and nothing is imported.
"""

from __future__ import annotations

import difflib
import inspect
from typing import Any

import torch
from torch import nn
from torch.nn.modules import activation as activations_of_torch

from .specs import ActivationSpec

_CLASSES_OF_ACTIVATIONS = ("torch.nn", "torch.nn.modules", "torch.nn.modules.activation")
_NOT_ELEMENTWISE = "MultiheadAttention"  # of the same file, and as large as its arguments ask for


def is_torch_class(spec: ActivationSpec) -> bool:
    """Whether a spec names one of torch's own activation classes, which a run folder may name without being trusted."""
    home, _, name = spec.head.rpartition(".")
    known = set(activations_of_torch.__all__) - {_NOT_ELEMENTWISE}
    return spec.kind == "package" and home in _CLASSES_OF_ACTIVATIONS and name in known


def named_in_torch(head: str) -> Any:
    """The class or function of torch that a dotted name means.

    Raises:
        ValueError: torch has no such thing, or it is neither a class of `torch.nn` nor a function of tensors.
    """
    home, _, name = head.rpartition(".")
    if home.startswith("torch.nn.modules."):
        place: Any = getattr(nn.modules, home.removeprefix("torch.nn.modules."), None)
    else:
        place = _HOMES.get(home)
    if place is not None and not hasattr(place, name):
        near = difflib.get_close_matches(name, dir(place), n=1)
        raise ValueError(f"{home} has no {name}" + (f", did you mean {near[0]}?" if near else ""))
    found = getattr(place, name, None)
    if name.startswith("_") or not (_is_layer(found) or _is_function_of_tensors(name, found)):
        raise ValueError(
            f"{head} is not an activation of torch: name a class of torch.nn, or a function of tensors in torch, "
            f"torch.special or torch.nn.functional"
        )
    return found


_HOMES = {
    "torch": torch,
    "torch.special": torch.special,
    "torch.nn": nn,
    "torch.nn.functional": nn.functional,
    "torch.nn.modules": nn.modules,
}
_HOMES_OF_FUNCTIONS = ("torch._C._nn", "torch._C._special", "torch.nn.functional")


def _is_layer(found: Any) -> bool:
    return inspect.isclass(found) and issubclass(found, nn.Module) and found.__module__.startswith("torch.nn.modules.")


def _is_function_of_tensors(name: str, found: Any) -> bool:
    """Whether it is an operator, or a function around operators, with the tensor as its first argument."""
    is_operator = found is getattr(torch._C._VariableFunctions, name, None) and name != "from_file"
    return callable(found) and (is_operator or getattr(found, "__module__", "") in _HOMES_OF_FUNCTIONS)
