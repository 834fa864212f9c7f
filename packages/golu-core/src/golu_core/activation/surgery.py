"""`replace_activations`: swaps the activation modules of any model in place, and says what it could not swap."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import Any

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .registry import ACTIVATIONS, build_activation, canonical_name

_GATE_NAMES = ("gate", "scale_activation")
_GATE_OWNERS = ("SqueezeExcit", "SEModule", "SEBlock", "SELayer", "EffectiveSE")


@dataclass(frozen=True)
class FunctionalCall:
    """A call of a known activation as a function, which no swap of modules reaches.

    Attributes:
        module: qualified name of the module whose forward makes the call; empty for the model itself.
        activation: the activation's name in the registry.
        count: how often the module calls it in one forward pass.
    """

    module: str
    activation: str
    count: int = 1

    def __str__(self) -> str:
        place = self.module or "the model's own forward"
        return f"{self.activation} called in {place}" + (f" ({self.count} times)" if self.count > 1 else "")


@dataclass(frozen=True)
class ReplacementReport:
    """What `replace_activations` did.

    Attributes:
        old, new: what was looked for and what replaces it, as names.
        swapped: qualified names of the replaced modules and function attributes; a shared module under each name.
        left: functional calls of known activations that stay what they were; None where tracing did not succeed.
        gates: modules of the old class that are gates and not activations, so they stay.
        untraced: why `left` is None.
    """

    old: str
    new: str
    swapped: tuple[str, ...]
    left: tuple[FunctionalCall, ...] | None
    gates: tuple[str, ...] = ()
    untraced: str = ""

    def __str__(self) -> str:
        lines = [f"{self.old} -> {self.new}: {len(self.swapped)} swapped"]
        lines += [f"  swapped {name}" for name in self.swapped]
        lines += [f"  gate kept {name}" for name in self.gates]
        if self.left is None:
            lines.append(f"  functional calls not looked for: {self.untraced}")
        else:
            lines += [f"  left {call}" for call in self.left]
        return "\n".join(lines)


def replace_activations(
    model: nn.Module,
    old: str | type[nn.Module],
    new: str | Callable[[], nn.Module],
    *,
    example_inputs: tuple[Any, ...] | None = None,
) -> ReplacementReport:
    """Replaces every module of one activation by another, recursively and in place; a shared module once.

    Args:
        model: any module. Functions held as attributes (`activation=F.relu`) are replaced like modules.
        old: a registry name, which also finds the same activation's classes in timm and transformers ("gelu" finds its
            tanh approximations too), or a module class, which finds its instances.
        new: a registry name, a module class, or a function that makes a module.
        example_inputs: positional arguments of one forward pass. With them the model runs once, without gradients and
            in evaluation mode, to find functional calls; without them it is traced by `torch.fx`, which fails on data
            dependent control flow.

    Returns:
        The report of what was swapped and what was left.

    Raises:
        ValueError: a name is unknown, or the model itself is the module to replace.
    """
    old_name, is_old = _matcher(old)
    make = _factory(new)
    if is_old(model):
        raise ValueError(
            f"the model itself is the {type(model).__name__} to replace, which cannot be done in place: "
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
    left, untraced = _functional_calls(model, old_name, example_inputs)
    new_name = new if isinstance(new, str) else getattr(new, "__name__", type(new).__name__)
    return ReplacementReport(old_name, new_name, tuple(swapped), left, tuple(gates), untraced)


def find_activations(
    model: nn.Module, name: str, *, example_inputs: tuple[Any, ...] | None = None
) -> ReplacementReport:
    """What `replace_activations(model, name, name)` would report, without a change of the model.

    Args:
        model, example_inputs: as there.
        name: a registry name.

    Raises:
        ValueError: the name is unknown.
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
    left, untraced = _functional_calls(model, name, example_inputs)
    return ReplacementReport(name, name, tuple(found), left, tuple(gates), untraced)


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
        known = next((n for n, a in ACTIVATIONS.items() if _dotted(old) in a.classes), old.__name__)
        return known, lambda module: isinstance(module, old)
    name = canonical_name(old)
    return name, lambda module: _activation_of(module, name) == name


def _activation_of(module: nn.Module, preferred: str | None = None) -> str | None:
    """The registry's name of an activation module, None if it is none; a tanh GELU is `gelu` if that is preferred."""
    classes = {_dotted(base) for base in type(module).__mro__}
    names = [name for name, activation in ACTIVATIONS.items() if classes.intersection(activation.classes)]
    if isinstance(module, nn.GELU) and module.approximate == "tanh":
        names.append("gelu_tanh")
    if preferred in names:
        return preferred
    return names[-1] if names else None


def _dotted(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _factory(new: str | Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    if isinstance(new, str):
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


_FUNCTION_HOMES = (F, torch)


def _known_functions() -> dict[Any, str]:
    """Every callable under which torch offers a known activation, with the activation's name."""
    known: dict[Any, str] = {}
    for name, activation in ACTIVATIONS.items():
        for function in activation.functions:
            for home in (*_FUNCTION_HOMES, Tensor):
                if hasattr(home, function):
                    known[getattr(home, function)] = name
    return known


def _function_attributes(owner: nn.Module, old_name: str) -> list[str]:
    """Names of attributes that hold the old activation as a plain function, as `nn.TransformerEncoderLayer` does."""
    known = _known_functions()
    functions = (FunctionType, type(torch.relu))
    return [key for key, value in vars(owner).items() if isinstance(value, functions) and known.get(value) == old_name]


def _replace_function(owner: nn.Module, attribute: str, new: nn.Module) -> None:
    delattr(owner, attribute)
    setattr(owner, attribute, new)
    _leave_fused_path(owner)


def functional_activations(
    model: nn.Module, example_inputs: tuple[Any, ...] | None = None
) -> tuple[FunctionalCall, ...] | None:
    """Calls of known activations as functions outside activation modules; None where tracing did not succeed.

    Sigmoid and tanh are not counted: as functions they are gates far more often than activations.
    """
    return _functional_calls(model, "", example_inputs)[0]


def _functional_calls(
    model: nn.Module, old_name: str, example_inputs: tuple[Any, ...] | None
) -> tuple[tuple[FunctionalCall, ...] | None, str]:
    """Functional calls of known activations outside activation modules, or None and why they could not be found.

    Gate functions (sigmoid, tanh) count only where they are what was asked for: elsewhere they are gates.
    """
    try:
        calls = _calls_by_tracing(model) if example_inputs is None else _calls_by_running(model, example_inputs)
    except Exception as error:  # a model can fail to trace in any way
        first_line = str(error).strip().partition("\n")[0]
        return None, f"{type(error).__name__}: {first_line}"
    counts: dict[tuple[str, str], int] = {}
    for call in calls:
        if call[1] == old_name or not ACTIVATIONS[call[1]].is_gate:
            counts[call] = counts.get(call, 0) + 1
    return tuple(FunctionalCall(module, name, count) for (module, name), count in counts.items()), ""


class _ActivationTracer(torch.fx.Tracer):
    """Traces into every module except activations, so that what is left are the calls a forward makes itself."""

    def is_leaf_module(self, module: nn.Module, module_qualified_name: str) -> bool:
        return _activation_of(module) is not None or super().is_leaf_module(module, module_qualified_name)


def _calls_by_tracing(model: nn.Module) -> list[tuple[str, str]]:
    known = _known_functions()
    methods = {function: name for name, a in ACTIVATIONS.items() for function in a.functions}
    calls = []
    for node in _ActivationTracer().trace(model).nodes:
        if node.op == "call_function":
            name = known.get(node.target)
        elif node.op == "call_method":
            name = methods.get(str(node.target))
        else:
            name = None
        if name is not None:
            stack = node.meta.get("nn_module_stack") or {"": ("", None)}
            calls.append((str(list(stack.values())[-1][0]), name))
    return calls


class _CallRecorder(TorchFunctionMode):
    """Notes every call of a known activation with the module that is running."""

    def __init__(self) -> None:
        super().__init__()
        self.known = _known_functions()
        self.running: list[tuple[str, nn.Module]] = []
        self.calls: list[tuple[str, str]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = self.known.get(func)
        if name is not None and not (self.running and _activation_of(self.running[-1][1])):
            self.calls.append((self.running[-1][0] if self.running else "", name))
        return func(*args, **(kwargs or {}))


def _calls_by_running(model: nn.Module, example_inputs: tuple[Any, ...]) -> list[tuple[str, str]]:
    recorder = _CallRecorder()
    with _evaluating(model), _watched(model, recorder), torch.no_grad(), recorder:
        model(*example_inputs)
    return recorder.calls


@contextmanager
def _watched(model: nn.Module, recorder: _CallRecorder) -> Iterator[None]:
    def enter(name: str, module: nn.Module, inputs: Any) -> None:
        recorder.running.append((name, module))

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        recorder.running.pop()

    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(partial(enter, name)))
        handles.append(module.register_forward_hook(leave, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
