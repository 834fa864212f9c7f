"""Whether an activation is what its label says: all of torch, timm and transformers, by their numbers."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from golu_core import build_activation, replace_activations
from golu_core.activation import ACTIVATIONS, find_activations
from golu_core.activation.swap.forward_calls import activation_of, known_functions
from golu_core.cli import main

X = torch.cat([torch.linspace(-20, 20, 4001), torch.linspace(-1, 1, 201)])
TOLERANCE = 5e-6
"""Some multiply by the rounded 1 / 6, and transformers writes the constants of GELU with ten digits."""
NEEDS_ARGUMENTS = {"ClippedGELUActivation", "GLU", "Module", "MultiheadAttention", "NonDynamicallyQuantizableLinear"}
NEEDS_ARGUMENTS |= {"Softmax2d", "Threshold"}
ALIKE = {"celu": "elu"}
"""Another name of the same function with its default parameters."""


def _classes() -> Iterator[tuple[str, Callable[[], nn.Module]]]:
    homes = [nn.modules.activation]
    with contextlib.suppress(ImportError):
        from timm.layers import activations, activations_me

        homes += [activations, activations_me]
    for home in homes:
        for name, cls in inspect.getmembers(home, inspect.isclass):
            if issubclass(cls, nn.Module) and name not in NEEDS_ARGUMENTS:
                yield f"{home.__name__}.{name}", cls
    with contextlib.suppress(ImportError):
        from transformers import activations as theirs

        for name, cls in inspect.getmembers(theirs, inspect.isclass):
            if issubclass(cls, nn.Module) and cls.__module__ == theirs.__name__ and name not in NEEDS_ARGUMENTS:
                yield f"{theirs.__name__}.{name}", cls
        for name in theirs.ACT2CLS:
            yield f"transformers: {name}", lambda name=name: theirs.ACT2FN[name]


CLASSES = dict(_classes())


def values(module: nn.Module) -> Tensor:
    with torch.no_grad():
        return module.eval().float()(X)


@pytest.fixture(scope="module")
def known() -> dict[str, Tensor]:
    return {name: values(build_activation(name)) for name in ACTIVATIONS}


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.filterwarnings("ignore")  # of softmax, which has no dimension
def test_a_class_is_what_its_label_says_and_has_one_if_it_is_known(name, known):
    module = CLASSES[name]()
    if "xielu" in name.lower():
        module = type(module)(dtype=torch.float32)  # rounds its parameters to bfloat16
    found = values(module)
    same = [label for label, exact in known.items() if torch.allclose(found, exact, rtol=1e-6, atol=TOLERANCE)]
    label = activation_of(module)
    assert (ALIKE.get(label, label) if label else None) == (same[0] if same else None)


@pytest.mark.parametrize("name", sorted(set(known_functions().values()) - {"prelu"}))
def test_a_function_is_what_its_label_says(name, known):
    for function in [function for function, label in known_functions().items() if label == name]:
        assert torch.allclose(function(X.clone()), known[name], rtol=1e-6, atol=TOLERANCE)


def test_quick_gelu_is_found_by_its_own_name():
    activations = pytest.importorskip("transformers.activations")
    model = nn.Sequential(activations.ACT2FN["quick_gelu"], activations.ACT2FN["gelu_new"])
    assert find_activations(model, "quick_gelu").swapped == ("0",)
    assert find_activations(model, "gelu_tanh").swapped == find_activations(model, "gelu").swapped == ("1",)
    assert replace_activations(model, "quick_gelu", "golu").swapped == ("0",)


def test_every_spec_that_the_command_prints_is_accepted_as_printed(capsys, known):
    assert main(["activations"]) == 0
    lines = capsys.readouterr().out.split("\n\n")[0].splitlines()
    printed = {line.split()[0]: line for line in lines}
    assert set(ACTIVATIONS) <= set(printed)
    for name, activation in ACTIVATIONS.items():
        spec = printed[name].removeprefix(name).strip().removeprefix(activation.paper_name).strip() or name
        assert spec.startswith(name) and all(f"{parameter}=" in spec for parameter in activation.parameters)
        assert torch.equal(values(build_activation(spec)), known[name])
