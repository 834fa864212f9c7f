"""Which activations a model's forward pass calls: modules, and functions that no swap of modules reaches."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..names.registry import ACTIVATIONS, LOADED_MARK

Inputs = tuple[Any, ...] | Mapping[str, Any]
"""Positional or keyword arguments of a forward pass."""


@dataclass(frozen=True)
class FunctionalCall:
    """A call of a known activation as a function, which swapping modules cannot reach.

    Attributes:
        module: The qualified name of the module whose forward makes the call; empty for the model itself.
        activation: The activation's name in the registry.
        count: The number of calls in one forward pass of the module.

    Examples:
        >>> from golu_core.activation import FunctionalCall
        >>> print(FunctionalCall("layer1.0", "relu", count=2))
        relu called in layer1.0 (2 times)
    """

    module: str
    activation: str
    count: int = 1

    def __str__(self) -> str:
        place = self.module or "the model's own forward"
        return f"{self.activation} called in {place}" + (f" ({self.count} times)" if self.count > 1 else "")


class ForwardPass(NamedTuple):
    """What a forward pass calls.

    Attributes:
        functions: calls of known activations as functions; None where they could not be found.
        modules: the modules that are called, by `id`; None where they could not be found.
        problem: why they could not be found.
    """

    functions: tuple[FunctionalCall, ...] | None
    modules: frozenset[int] | None
    problem: str = ""


def functional_activations(model: nn.Module, example_inputs: Inputs | None = None) -> tuple[FunctionalCall, ...] | None:
    """Return the calls of known activations as functions outside activation modules; None where tracing failed.

    Sigmoid and tanh are not counted: as functions they are gates far more often than activations.

    Args:
        model: Any module.
        example_inputs: The arguments of one forward pass, as for `replace_activations`.

    Examples:
        >>> import torch
        >>> from golu_core.activation import functional_activations
        >>> class Net(torch.nn.Module):
        ...     def forward(self, x):
        ...         return torch.relu(x) + torch.nn.functional.gelu(x)
        >>> [call.activation for call in functional_activations(Net())]
        ['relu', 'gelu']
    """
    return forward_pass(model, "", example_inputs).functions


def forward_pass(model: nn.Module, wanted: str, example_inputs: Inputs | None = None) -> ForwardPass:
    """What a model's forward pass calls, found by one run with inputs, or by a trace without them.

    A model of transformers that cannot be traced is run with inputs that follow from its config.

    Args:
        model: any module.
        wanted: an activation that counts even if it is a gate (sigmoid, tanh); elsewhere those are gates.
        example_inputs: positional or keyword arguments.
    """
    try:
        try:
            found = _by_tracing(model) if example_inputs is None else _by_running(model, example_inputs)
        except Exception:  # a model can fail to trace in any way
            made = inputs_by_config(model) if example_inputs is None else None
            if made is None:
                raise
            found = _by_running(model, made)
    except Exception as error:
        first_line = str(error).strip().partition("\n")[0]
        return ForwardPass(None, None, f"{type(error).__name__}: {first_line}")
    counts: dict[tuple[str, str], int] = {}
    for call in [*found.functions, *_scripted_calls(model)]:
        if call[1] == wanted or not ACTIVATIONS[call[1]].is_gate:
            counts[call] = counts.get(call, 0) + 1
    calls = tuple(FunctionalCall(module, name, count) for (module, name), count in counts.items())
    return ForwardPass(calls, frozenset(found.modules))


def activation_of(module: nn.Module, preferred: str | None = None) -> str | None:
    """The name of an activation module, None if it is none; a tanh GELU is `gelu` if that is preferred."""
    loaded = getattr(module, LOADED_MARK, None)
    if isinstance(loaded, str):
        return loaded
    classes = {dotted(base) for base in type(module).__mro__}
    names = [name for name, activation in ACTIVATIONS.items() if classes.intersection(activation.classes)]
    if isinstance(module, nn.GELU) and module.approximate == "tanh":
        names.append("gelu_tanh")
    if preferred in names:
        return preferred
    return names[-1] if names else None


def dotted(cls: type) -> str:
    """The full name of a class, as `registry` has it."""
    return f"{cls.__module__}.{cls.__qualname__}"


_FUNCTION_HOMES = (F, torch)


def known_functions() -> dict[Any, str]:
    """Every callable under which torch offers a known activation, with the activation's name."""
    known: dict[Any, str] = {}
    for name, activation in ACTIVATIONS.items():
        for function in activation.functions:
            for home in (*_FUNCTION_HOMES, Tensor):
                if hasattr(home, function):
                    known[getattr(home, function)] = name
    return known


class _Found(NamedTuple):
    functions: list[tuple[str, str]]  # module, activation
    modules: set[int]


class _ActivationTracer(torch.fx.Tracer):
    """Traces into every module except activations, so that what is left are the calls a forward makes itself."""

    def is_leaf_module(self, module: nn.Module, module_qualified_name: str) -> bool:
        return activation_of(module) is not None or super().is_leaf_module(module, module_qualified_name)


def _by_tracing(model: nn.Module) -> _Found:
    known = known_functions()
    methods = {function: name for name, a in ACTIVATIONS.items() for function in a.functions}
    found = _Found([], set())
    for node in _ActivationTracer().trace(model).nodes:
        name = None
        if node.op == "call_module":
            # the trace stops at a layer of torch.nn, and what is in it may be called
            found.modules.update(id(part) for part in model.get_submodule(str(node.target)).modules())
        elif node.op == "call_function":
            name = known.get(node.target)
        elif node.op == "call_method":
            name = methods.get(str(node.target))
        if name is not None:
            stack = node.meta.get("nn_module_stack") or {"": ("", None)}
            found.functions.append((str(list(stack.values())[-1][0]), name))
    return found


class _CallRecorder(TorchFunctionMode):
    """Notes every module that runs, and every call of a known activation with the module that makes it."""

    def __init__(self) -> None:
        super().__init__()
        self.known = known_functions()
        self.running: list[tuple[str, nn.Module]] = []
        self.found = _Found([], set())

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = self.known.get(func)
        if name is not None and not (self.running and activation_of(self.running[-1][1])):
            self.found.functions.append((self.running[-1][0] if self.running else "", name))
        return func(*args, **(kwargs or {}))


def _by_running(model: nn.Module, inputs: Inputs) -> _Found:
    recorder = _CallRecorder()
    with evaluating(model), _watched(model, recorder), torch.no_grad(), recorder:
        called_with(model, inputs)
    return recorder.found


def called_with(model: nn.Module, inputs: Inputs) -> Any:
    """What a model says of positional or keyword arguments."""
    return model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)


@contextmanager
def _watched(model: nn.Module, recorder: _CallRecorder) -> Iterator[None]:
    def enter(name: str, module: nn.Module, inputs: Any) -> None:
        recorder.running.append((name, module))
        recorder.found.modules.add(id(module))

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        recorder.running.pop()

    handles = []
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):  # takes no hooks, and is read by `_scripted_calls`
            continue
        handles.append(module.register_forward_pre_hook(partial(enter, name)))
        handles.append(module.register_forward_hook(leave, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, after which each module is in its own again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def inputs_by_config(model: nn.Module) -> Inputs | None:
    """Inputs for a model of transformers, by what it says of itself; None for any other."""
    config, main = getattr(model, "config", None), getattr(model, "main_input_name", None)
    weight = next(model.parameters(), None)
    if config is None or weight is None:
        return None
    tokens = torch.ones(1, 4, dtype=torch.long, device=weight.device)
    shape: tuple[int, ...]
    if main == "input_ids":
        inputs = {main: tokens}
    elif main == "pixel_values":
        side = getattr(config, "image_size", 64)
        shape = (1, getattr(config, "num_channels", 3), *(side if isinstance(side, (tuple, list)) else (side, side)))
        inputs = {main: torch.zeros(shape, device=weight.device, dtype=weight.dtype)}
    elif main == "input_features" and hasattr(config, "num_mel_bins"):  # speech: two frames for each position
        shape = (1, config.num_mel_bins, 2 * config.max_source_positions)
        inputs = {main: torch.zeros(shape, device=weight.device, dtype=weight.dtype)}
    else:
        return None
    return inputs | {"decoder_input_ids": tokens} if getattr(config, "is_encoder_decoder", False) else inputs


def _scripted_calls(model: nn.Module) -> list[tuple[str, str]]:
    """Activations in the graphs of scripted parts, which no swap reaches."""
    by_operator = {function: name for name, a in ACTIVATIONS.items() for function in a.functions}
    calls: list[tuple[str, str]] = []
    inside: list[str] = []
    for name, module in model.named_modules():
        if not isinstance(module, torch.jit.ScriptModule) or any(name.startswith(f"{outer}.") for outer in inside):
            continue
        inside.append(name)
        operators = re.findall(r"aten::(\w+)\(", str(getattr(module, "inlined_graph", "")))
        calls += [(name, by_operator[operator]) for operator in operators if operator in by_operator]
    return calls
