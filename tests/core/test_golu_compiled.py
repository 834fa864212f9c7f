"""GoLU in torch's compilers and exporters: what computes it on this machine does not matter there, and runs once."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from golu_core import GoLU, golu
from reference import golu_gradient


def sample(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0)) * 3


@pytest.mark.slow
def test_compile_with_dynamic_shapes_takes_one_graph():
    compilations = []

    def backend(graph, example_inputs):
        compilations.append(graph)
        return graph.forward

    compiled = torch.compile(golu, fullgraph=True, dynamic=True, backend=backend)
    for size in (3, 17, 64, 1001):
        x = sample(size, dtype=torch.float32)
        torch.testing.assert_close(compiled(x), golu(x), rtol=1e-6, atol=1e-7)
    assert len(compilations) == 1


COMPILED = {
    "golu": golu,
    "parameters": lambda x: golu(x, 1.5, 0.7, 1.2),
    "vmap of grad": lambda x: torch.func.vmap(torch.func.grad(golu))(x),
    "module": GoLU(),
    "checkpointed": lambda x: checkpoint(golu, x, use_reentrant=False),
}


INPUTS = {
    "golu": (lambda x: golu(x), 3),  # x, and beta and gamma as numbers, which `dynamic=True` asks for
    "parameters": (COMPILED["parameters"], 1),
    "module": (GoLU(), 3),
    "learned": (GoLU(learnable=True), 4),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", INPUTS)
def test_what_is_compiled_takes_no_numbers_of_this_package(name):
    """A constant of a module that the compiler takes for an input costs a fifth of a small call."""
    function, most = INPUTS[name]
    given = []

    def backend(graph, example_inputs):
        given.extend(example_inputs)
        return graph.forward

    torch.compiler.reset()
    torch.compile(function, fullgraph=True, dynamic=True, backend=backend)(sample(64, dtype=torch.float32))
    assert sum(not isinstance(value, torch.SymInt) for value in given) <= most


@pytest.mark.slow
@pytest.mark.filterwarnings("error:.*lru_cache.*")
@pytest.mark.parametrize("backend", ["inductor", "aot_eager"])
@pytest.mark.parametrize("name", COMPILED)
def test_what_is_compiled_gives_the_same_at_the_extremes_too(name, backend):
    torch.compiler.reset()
    function = COMPILED[name]
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=backend)
    edges = torch.tensor([-torch.inf, torch.inf, torch.nan, 100.0, -100.0, 0.0, -1e30, 1e30])
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        for size in (17, 64, 1000):
            x = torch.cat([edges, sample(size).float()]).to(dtype)
            torch.testing.assert_close(
                compiled(x), function(x), rtol=2e-6 if dtype != torch.bfloat16 else 8e-3, atol=1e-6, equal_nan=True
            )
            if name != "vmap of grad":
                found, expected = golu_gradient(compiled, x), golu_gradient(function, x)
                torch.testing.assert_close(
                    found, expected, rtol=1e-5 if dtype != torch.bfloat16 else 8e-3, atol=2e-6, equal_nan=True
                )


@pytest.mark.slow
def test_compiled_without_a_gradient_and_in_training():
    torch.compiler.reset()
    compiled = torch.compile(golu, fullgraph=True)
    x = sample(100).float()
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), golu(x))
    with torch.inference_mode():
        torch.testing.assert_close(compiled(x), golu(x))
    torch.testing.assert_close(golu_gradient(compiled, x), golu_gradient(golu, x))


@pytest.mark.slow
def test_inductor_forward_and_backward():
    model = nn.Sequential(nn.Linear(8, 8), GoLU(1.0, 0.5, 2.0), nn.Linear(8, 1)).double()
    compiled = torch.compile(copy.deepcopy(model), fullgraph=True, dynamic=True)
    for rows in (2, 5, 33):
        x = sample(rows, 8)
        torch.testing.assert_close(golu_gradient(compiled, x), golu_gradient(model, x))


def test_export_with_a_dynamic_dimension():
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(GoLU(), (sample(4, 3),), dynamic_shapes={"x": {0: batch}})
    x = sample(9, 3)
    torch.testing.assert_close(program.module()(x), golu(x))


@pytest.mark.slow
def test_onnx_export_runs_in_onnxruntime():
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime, from the dependency group test")
    model = nn.Sequential(nn.Linear(3, 4), GoLU()).eval()
    program = torch.onnx.export(model, (torch.zeros(2, 3),), dynamo=True, verbose=False)
    buffer = io.BytesIO()
    program.save(buffer)
    session = onnxruntime.InferenceSession(buffer.getvalue(), providers=["CPUExecutionProvider"])
    x = sample(2, 3, dtype=torch.float32)
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(y), model(x).detach(), rtol=1e-5, atol=1e-6)
