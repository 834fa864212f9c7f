"""`replace_activations`: swaps the activation modules of any model in place, and says what it could not swap."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FunctionType

import torch
from torch import Tensor, nn

from ..names.loading import build_activation
from ..names.registry import ACTIVATIONS, canonical_name
from .forward_calls import (
    ForwardPass,
    FunctionalCall,
    Inputs,
    activation_of,
    dotted,
    forward_pass,
    inputs_by_config,
    known_functions,
)
from .per_channel import size_per_channel, unsized_modules

_ACTIVATION_MODULES = (
    "torch.nn.modules.activation",
    "timm.layers.activations",
    "timm.layers.activations_me",
    "transformers.activations",
)
_GATE_NAMES = ("gate", "scale_activation")
_GATE_OWNERS = ("SqueezeExcit", "SEModule", "SEBlock", "SELayer", "EffectiveSE")


@dataclass(frozen=True)
class ReplacementReport:
    """What `replace_activations` did. Printed, it is one line for each module.

    Attributes:
        old, new: The names of the activation that was looked for, and of the one that replaces it.
        swapped: The qualified names of the replaced modules and function attributes; a shared module under each name.
        left: The functional calls of known activations that stay as they were, including those of scripted parts; None
            where tracing failed.
        gates: The modules of the old class that are gates and not activations, so they stay.
        untraced: The reason why `left` is None.
        uncalled: The swapped modules that the forward pass never calls, so that they change nothing. It was traced or
            run in evaluation mode.
        others: If nothing was found, the classes of activations that the model has, with their counts.

    Examples:
        >>> from torch import nn
        >>> from golu_core.activation import ReplacementReport, replace_activations
        >>> report: ReplacementReport = replace_activations(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), "relu", "golu")
        >>> report.swapped, report.left
        (('1',), ())
    """

    old: str
    new: str
    swapped: tuple[str, ...]
    left: tuple[FunctionalCall, ...] | None
    gates: tuple[str, ...] = ()
    untraced: str = ""
    uncalled: tuple[str, ...] = ()
    others: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.old} -> {self.new}: {len(self.swapped)} swapped"]
        never = ", but the forward pass never calls it"
        lines += [f"  swapped {name}{never if name in self.uncalled else ''}" for name in self.swapped]
        if self.others:
            listed = ", ".join(f"{count} {name}" for name, count in self.others)
            lines.append(f"  the model has {listed}: pass the name or the class of the one to replace")
        lines += [f"  gate kept {name}" for name in self.gates]
        if self.left is None:
            lines.append(f"  functional calls not searched for: {self.untraced}")
        else:
            lines += [f"  left {call}" for call in self.left]
        return "\n".join(lines)


def replace_activations(
    model: nn.Module,
    old: str | type[nn.Module],
    new: str | Callable[[], nn.Module],
    *,
    example_inputs: Inputs | None = None,
) -> ReplacementReport:
    """Replace every module of one activation by another, recursively and in place; a shared module once.

    Args:
        model: Any module. Functions held as attributes (`activation=F.relu`) are replaced like modules.
        old: A plain registry name, which also finds the same activation's classes in timm and transformers ("gelu" also
            finds its tanh approximations), or a module class, which finds its instances.
        new: A name that `build_activation` accepts, a module class, or a function that builds a module.
        example_inputs: The positional arguments of one forward pass as a tuple, or its keyword arguments as a dict.
            With them the model runs once, without gradients and in evaluation mode, to find functional calls and
            modules that are never called. Without them it is traced by `torch.fx`, which fails on data-dependent
            control flow; a model of transformers is then run with inputs that follow from its config.

    Returns:
        The report of what was swapped and what was left.

    Raises:
        ValueError: A name is unknown, the model itself is the module to replace, or parameters for each channel are
            requested where `size_per_channel` cannot find them.

    Examples:
        >>> from torch import nn
        >>> from golu_core import replace_activations
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> print(replace_activations(model, "relu", "golu"))
        relu -> golu: 1 swapped
          swapped 1
    """
    old_name, is_old = _matcher(old)
    make = _factory(new)
    if is_old(model):
        raise ValueError(
            f"the model itself is the {type(model).__name__} to replace, and it cannot replace itself: "
            f"use the new module instead"
        )
    reference = next((p for p in model.parameters() if p.is_floating_point()), None)
    replacements: dict[int, nn.Module] = {}
    made: set[int] = set()
    swapped: list[str] = []
    gates: list[str] = []
    for owner_name, owner in _owners(model, "", made, set()):
        for attribute, child in list(owner._modules.items()):
            if child is None or not is_old(child):
                continue
            name = f"{owner_name}.{attribute}" if owner_name else attribute
            if _is_gate(old_name, owner, attribute):
                gates.append(name)
                continue
            if id(child) not in replacements:
                replacements[id(child)] = _made_like(make(), child, reference)
                made.add(id(replacements[id(child)]))
            _set_child(owner, attribute, replacements[id(child)])
            swapped.append(name)
        for attribute in _function_attributes(owner, old_name):
            new_module = _made_like(make(), owner, reference)
            made.add(id(new_module))
            _replace_function(owner, attribute, new_module)
            swapped.append(f"{owner_name}.{attribute}" if owner_name else attribute)
    _size_new(model, example_inputs)
    new_name = new if isinstance(new, str) else getattr(new, "__name__", type(new).__name__)
    found = forward_pass(model, old_name, example_inputs)
    return _report(model, old_name, new_name, swapped, gates, found)


def _size_new(model: nn.Module, example_inputs: Inputs | None) -> None:
    """Gives modules with parameters of each channel their sizes, where inputs are known."""
    if not unsized_modules(model):
        return
    inputs = inputs_by_config(model) if example_inputs is None else example_inputs
    if inputs is not None:
        size_per_channel(model, inputs)


def find_activations(model: nn.Module, name: str, *, example_inputs: Inputs | None = None) -> ReplacementReport:
    """Return what `replace_activations(model, name, name)` would report, without changing the model.

    Args:
        model: Any module.
        name: A registry name.
        example_inputs: The arguments of one forward pass, as for `replace_activations`.

    Raises:
        ValueError: The name is unknown.

    Examples:
        >>> from torch import nn
        >>> from golu_core.activation import find_activations
        >>> find_activations(nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Tanh()), "tanh").swapped
        ('1', '2')
    """
    name, is_it = _matcher(name)
    found: list[str] = []
    gates: list[str] = []
    for owner_name, owner in _owners(model, "", set(), set()):
        prefix = f"{owner_name}." if owner_name else ""
        for attribute, child in owner._modules.items():
            if child is not None and is_it(child):
                (gates if _is_gate(name, owner, attribute) else found).append(prefix + attribute)
        found += [prefix + attribute for attribute in _function_attributes(owner, name)]
    return _report(model, name, name, found, gates, forward_pass(model, name, example_inputs))


def _report(
    model: nn.Module, old: str, new: str, swapped: list[str], gates: list[str], found: ForwardPass
) -> ReplacementReport:
    uncalled: tuple[str, ...] = ()
    if found.modules is not None:
        modules = {name: module for name in swapped if isinstance(module := _at(model, name), nn.Module)}
        uncalled = tuple(name for name, module in modules.items() if id(module) not in found.modules)
    others = () if swapped or gates else _activation_classes(model)
    return ReplacementReport(old, new, tuple(swapped), found.functions, tuple(gates), found.problem, uncalled, others)


def _activation_classes(model: nn.Module) -> tuple[tuple[str, int], ...]:
    """Return the classes of a model's activation modules, the most frequent first."""
    listed = {name for activation in ACTIVATIONS.values() for name in activation.classes}
    counts = Counter(
        type(module).__name__
        for module in model.modules()
        if dotted(type(module)) in listed or type(module).__module__ in _ACTIVATION_MODULES
        if not isinstance(module, nn.MultiheadAttention)
    )
    return tuple(counts.most_common())


def _at(model: nn.Module, name: str) -> object:
    owner, _, attribute = name.rpartition(".")
    return getattr(model.get_submodule(owner), attribute)


def _owners(module: nn.Module, name: str, made: set[int], seen: set[int]) -> Iterator[tuple[str, nn.Module]]:
    """Every module with its qualified name, once, and none inside what was swapped in on the way."""
    if id(module) in seen or id(module) in made:
        return
    seen.add(id(module))
    yield name, module
    for attribute, child in list(module._modules.items()):
        if child is not None:
            yield from _owners(child, f"{name}.{attribute}" if name else attribute, made, seen)


def _matcher(old: str | type[nn.Module]) -> tuple[str, Callable[[nn.Module], bool]]:
    """The name of what is looked for, and the test whether a module is one."""
    if isinstance(old, type):
        known = next((n for n, a in ACTIVATIONS.items() if dotted(old) in a.classes), old.__name__)
        return known, lambda module: isinstance(module, old)
    name = canonical_name(old)
    if name not in ACTIVATIONS:
        raise ValueError(f"{old!r} cannot be searched for: pass a plain name of the registry, or the class itself")
    return name, lambda module: activation_of(module, name) == name


def _factory(new: str | Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    if isinstance(new, str):
        build_activation(new)  # what is wrong with it is said before anything is swapped
        name = canonical_name(new)
        return lambda: build_activation(name)
    return new


def _is_gate(old_name: str, owner: nn.Module, attribute: str) -> bool:
    activation = ACTIVATIONS.get(old_name)
    if activation is None or not activation.is_gate:
        return False
    return attribute in _GATE_NAMES or any(part in type(owner).__name__ for part in _GATE_OWNERS)


def _made_like(new: nn.Module, old: nn.Module, reference: Tensor | None) -> nn.Module:
    """The new module in the old one's mode, and on the device and in the dtype of the model's weights."""
    new.train(old.training)
    return new if reference is None else new.to(device=reference.device, dtype=reference.dtype)


def _set_child(owner: nn.Module, attribute: str, new: nn.Module) -> None:
    owner._modules[attribute] = new
    _leave_fused_path(owner)


def _leave_fused_path(owner: nn.Module) -> None:
    """`nn.TransformerEncoderLayer` has a fused inference path that computes ReLU or GELU whatever its module says."""
    if isinstance(owner, nn.TransformerEncoderLayer):
        owner.activation_relu_or_gelu = 0


def _function_attributes(owner: nn.Module, old_name: str) -> list[str]:
    """Names of attributes that hold the old activation as a plain function, as `nn.TransformerEncoderLayer` does."""
    known = known_functions()
    functions = (FunctionType, type(torch.relu))
    return [key for key, value in vars(owner).items() if isinstance(value, functions) and known.get(value) == old_name]


def _replace_function(owner: nn.Module, attribute: str, new: nn.Module) -> None:
    delattr(owner, attribute)
    setattr(owner, attribute, new)
    _leave_fused_path(owner)
