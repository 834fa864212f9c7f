"""GoLU where torch's own activations go: tracers, scripts, ambient settings, odd tensors, other libraries."""

from __future__ import annotations

import contextlib
import copy
import pickle
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cpu_paths import PATHS, kernels_of
from golu_core import GoLU, golu
from golu_core.activation import gated_golu, golu_expression, replace_activations
from golu_core.activation.compute import eager, native
from reference import golu_gradient, reference_forward, reference_gradient


@pytest.fixture(params=PATHS)
def path(request, monkeypatch):
    """Each test with all that can compute GoLU on this machine."""
    kernels = kernels_of(request.param)
    monkeypatch.setattr(native, "kernels", lambda: kernels)
    monkeypatch.setattr(eager, "_kept", type(eager._kept)())
    return request.param


SMALL, LARGE = 100, eager._CPU_MIN_CHUNK + 100  # the second takes the scratch that is kept


def values(count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return (torch.randn(count, generator=torch.Generator().manual_seed(0), device="cpu") * 3).to(dtype)


# ----------------------------------------------------------------------------------------------------- ambient settings


@contextlib.contextmanager
def default_device(name: str) -> Iterator[None]:
    before = torch.get_default_device()
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(before)


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


SETTINGS: dict[str, Callable[[], Any]] = {
    "meta device": lambda: torch.device("meta"),
    "a device that is not there": lambda: torch.device("cuda"),
    "default device meta": lambda: default_device("meta"),
    "default device cuda": lambda: default_device("cuda"),
    "default float64": lambda: default_dtype(torch.float64),
    "default bfloat16": lambda: default_dtype(torch.bfloat16),
    "deterministic": deterministic,
    "no gradients": torch.no_grad,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "anomalies": torch.autograd.detect_anomaly,
}
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "golu": golu,
    "GoLU": lambda x: GoLU(0.5)(x) * 2,
    "expression": golu_expression,
    "gated": lambda x: gated_golu(x, x.detach() * 0 + 1),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("count", [SMALL, LARGE])
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_settings_of_the_surroundings_change_nothing_inside_nor_afterwards(setting, function, count, dtype, path):
    x = values(count, dtype)
    call = FUNCTIONS[function]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the anomaly mode
        with SETTINGS[setting]():
            inside = call(x)
            leaf = x.detach().requires_grad_()
            if torch.is_grad_enabled():
                call(leaf).backward(torch.ones_like(leaf))
    fresh = call(x)
    assert inside.device == x.device and inside.dtype == dtype
    assert torch.equal(inside.clone(), fresh)
    assert torch.equal(golu_gradient(call, x), leaf.grad if leaf.grad is not None else golu_gradient(call, x))


# --------------------------------------------------------------------------------------------------------- odd tensors

ODD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "a list": (lambda: [1.0], TypeError, "x must be a Tensor, not list"),
    "a number": (lambda: 1.0, TypeError, "x must be a Tensor, not float"),
    "an array": (lambda: values(3).numpy(), TypeError, "x must be a Tensor, not ndarray"),
    "nothing": (lambda: None, TypeError, "x must be a Tensor, not NoneType"),
    "sparse": (lambda: torch.eye(3).to_sparse(), TypeError, "not of layout torch.sparse_coo: call to_dense"),
    "compressed": (lambda: torch.eye(3).to_sparse_csr(), TypeError, "not of layout torch.sparse_csr: call to_dense"),
    "oneDNN": (lambda: torch.eye(3).to_mkldnn(), TypeError, "not of layout torch._mkldnn: call to_dense"),
    "whole numbers": (lambda: torch.arange(3), TypeError, "torch.int64"),
    "truth values": (lambda: torch.arange(3) > 1, TypeError, "torch.bool"),
    "complex": (lambda: torch.ones(2, dtype=torch.complex64), TypeError, "torch.complex64"),
    "8 bits": (lambda: torch.ones(2).to(torch.float8_e4m3fn), TypeError, "torch.float8_e4m3fn"),
}


@pytest.mark.parametrize("case", ODD)
def test_what_is_not_supported_is_named(case, path):
    make, kind, message = ODD[case]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of compressed layouts
        x = make()
    with pytest.raises(kind, match=message):
        golu(x)


NESTED: dict[str, Callable[[Tensor], Tensor]] = {
    "golu": lambda x: golu(x, 1.0, 0.5),
    "GoLU": GoLU(1.0, 0.5),
    "gated": lambda x: gated_golu(x, x, 1.0, 0.5),
    "learnable": GoLU(1.0, 0.5, learnable=True),
    "learnable by channel": GoLU(1.0, 0.5, learnable=True, shape=(4,)),
    "compiled": torch.compile(lambda x: golu(x, 1.0, 0.5), backend="eager", fullgraph=True, dynamic=False),
}


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
@pytest.mark.parametrize("form", NESTED)
@pytest.mark.filterwarnings("ignore")  # torch's own prototype warning
def test_nested_tensors_are_what_torchs_activations_return(form, layout, path):
    if form == "compiled" and layout is torch.strided:
        return  # torch.compile does not trace these
    x = torch.nested.nested_tensor([values(12).view(3, 4), values(8).view(2, 4)], layout=layout)
    tensors = [x] if layout is torch.strided else [x, torch.nested.narrow(values(40).view(2, 5, 4), 1, 1, 3, layout)]
    tensors += [x.transpose(1, 2)] if layout is torch.jagged and "channel" not in form else []
    for tensor in tensors:
        y, like = NESTED[form](tensor), F.silu(tensor)
        assert y.layout is like.layout and type(y) is type(like)
        (y + tensor).unbind()
        for found, part in zip(y.unbind(), tensor.unbind(), strict=True):
            gated = part if form == "gated" else 1.0
            torch.testing.assert_close(found, golu(part, 1.0, 0.5) * gated)


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_nested_tensors(layout, path):
    parts = [values(12).view(3, 4), values(8).view(2, 4)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own prototype warning
        x = torch.nested.nested_tensor(parts, layout=layout, requires_grad=True)
        y = golu(x, 1.0, 0.5)
        torch.nested.to_padded_tensor(y, 0.0).sum().backward()
    for part, found, gradient in zip(parts, y.unbind(), x.grad.unbind(), strict=True):
        torch.testing.assert_close(found, golu(part, 1.0, 0.5))
        torch.testing.assert_close(gradient.double(), reference_gradient(part, 1.0, 0.5), rtol=1e-5, atol=1e-6)


ALTERED: dict[str, Callable[[Tensor], Tensor]] = {
    "negated view": torch._neg_view,
    "imaginary part of a conjugate": lambda x: torch.complex(x, x).conj().imag,
    "zeros without memory": lambda x: torch._efficientzerotensor(x.shape, dtype=x.dtype),
    "a parameter": nn.Parameter,
    "a buffer": nn.Buffer,
    "a subclass": lambda x: x.as_subclass(type("Marked", (Tensor,), {})),
    "a view of half the type": lambda x: x.view(torch.int32).view(torch.float32),
}


@pytest.mark.parametrize("count", [SMALL, LARGE])
@pytest.mark.parametrize("case", ALTERED)
def test_tensors_that_are_not_what_lies_in_memory(case, count, path):
    x = ALTERED[case](values(count))
    y, like = golu(x), F.silu(x)
    assert type(y) is type(like) and y.dtype == x.dtype
    torch.testing.assert_close(y.detach().as_subclass(Tensor).double(), reference_forward(x).as_subclass(Tensor))


def test_a_gradient_that_is_not_what_lies_in_memory(path):
    x = values(50).requires_grad_()
    golu(x).backward(torch._neg_view(torch.ones(50)))
    torch.testing.assert_close(x.grad.double(), -reference_gradient(x), rtol=1e-5, atol=1e-6)


# ----------------------------------------------------------------------------------------------------------- parameters

PARAMETERS = [{"gamma": -1.0}, {"gamma": 0.0}, {"beta": 0.0}, {"alpha": -2.0}, {"beta": float("nan")}, {"gamma": 1e7}]
CALLS: dict[str, Callable[..., Any]] = {
    "golu": golu,
    "expression": golu_expression,
    "gated": lambda x, **p: gated_golu(x, x, **p),
    "module": lambda x, **p: GoLU(**p)(x),
    "vmap": lambda x, **p: torch.func.vmap(lambda t: golu(t, **p))(x),
    "grad": lambda x, **p: torch.func.grad(lambda t: golu(t, **p).sum())(x),
    "meta": lambda x, **p: golu(x.to("meta"), **p),
    "trace": lambda x, **p: torch.jit.trace(lambda t: golu(t, **p), (x,)),
    "subclass": lambda x, **p: golu(x.as_subclass(type("Marked", (Tensor,), {})), **p),
    "compile": lambda x, **p: torch.compile(lambda t: golu(t, **p), backend="eager", fullgraph=True)(x),
    "export": lambda x, **p: torch.export.export(Called(p), (x,)),
    "graph": lambda x, **p: torch.fx.symbolic_trace(Called(p))(x),
}


class Called(nn.Module):
    def __init__(self, parameters: dict[str, float]) -> None:
        super().__init__()
        self.parameters_of_golu = parameters

    def forward(self, x: Tensor) -> Tensor:
        return golu(x, **self.parameters_of_golu)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TorchScript
@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
@pytest.mark.parametrize("call", CALLS)
def test_wrong_parameters_are_refused_on_every_path(call, parameters):
    (name,) = parameters
    torch.compiler.reset()
    with pytest.raises(Exception, match=f"GoLU's {name} must be"):
        CALLS[call](values(4), **parameters)


# -------------------------------------------------------------------------------------------- tracers and scripts


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), GoLU(1.0, 0.5, 2.0), nn.Sequential(nn.Linear(8, 4), GoLU()))


def test_a_traced_model_has_one_node_for_each_golu():
    model = network()
    traced = torch.fx.symbolic_trace(model)
    calls = [node for node in traced.graph.nodes if node.target is golu]
    assert len(calls) == 2 and calls[0].kwargs == {"alpha": 1.0, "beta": 0.5, "gamma": 2.0}
    x = values(30).view(5, 6)
    assert torch.equal(traced(x), model(x))
    for twin in (copy.deepcopy(traced), pickle.loads(pickle.dumps(traced))):
        assert torch.equal(twin(x), model(x))
    assert len(torch.fx.symbolic_trace(lambda a, b: gated_golu(a, b)).graph.nodes) == 4


def test_scripted_models_give_the_same_and_are_saved(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript itself
        scripted = torch.jit.script(network())
        torch.jit.save(scripted, tmp_path / "model.pt")
        loaded = torch.jit.load(tmp_path / "model.pt")
    model = network()
    model.load_state_dict(scripted.state_dict())
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        x = values(30).view(5, 6).to(dtype)
        for program in (scripted, loaded):
            torch.testing.assert_close(
                program.to(dtype)(x), model.to(dtype)(x), rtol=1e-2 if x.itemsize == 2 else 1e-5, atol=1e-5
            )
    with pytest.raises(Exception, match="floating-point"):
        torch.jit.script(GoLU())(torch.arange(3))


def test_features_of_torchvisions_models():
    from torchvision.models import resnet18
    from torchvision.models.feature_extraction import create_feature_extractor

    model = resnet18(num_classes=3).eval()
    assert replace_activations(model, "relu", "golu").left == ()
    extractor = create_feature_extractor(model, {"layer2": "features", "layer4.1.relu.golu_1": "last"})
    x = values(3 * 64 * 64).view(1, 3, 64, 64)
    features = extractor(x)
    expected = nn.Sequential(*list(model.children())[:6])(x)
    torch.testing.assert_close(features["features"], expected)
    assert features["last"].shape == (1, 512, 2, 2)


def test_factories_of_torchvision_and_timm_take_the_class():
    from torchvision.ops import MLP, Conv2dNormActivation

    x = values(3 * 8 * 8).view(1, 3, 8, 8)
    block = Conv2dNormActivation(3, 4, activation_layer=GoLU)
    assert isinstance(block[2], GoLU) and block(x).shape == (1, 4, 8, 8)
    assert any(isinstance(m, GoLU) for m in MLP(4, [5, 3], activation_layer=GoLU).modules())
    timm = pytest.importorskip("timm")
    model = timm.create_model("resnet18", act_layer=GoLU, num_classes=2)
    assert any(isinstance(m, GoLU) for m in model.modules()) and not any(
        isinstance(m, nn.ReLU) for m in model.modules()
    )
    vit = timm.create_model("vit_tiny_patch16_224", act_layer=GoLU, num_classes=2, depth=1)
    assert sum(isinstance(m, GoLU) for m in vit.modules()) == 1
    features = timm.create_model("resnet18", act_layer=GoLU, features_only=True)(values(3 * 64 * 64).view(1, 3, 64, 64))
    assert [f.shape[1] for f in features] == [64, 64, 128, 256, 512]


def test_quantization_of_a_traced_graph():
    quantization = pytest.importorskip("torch.ao.quantization.quantize_fx", reason="torch has no FX quantization")
    from torch.ao.quantization import get_default_qconfig_mapping

    model, x = network().eval(), values(30).view(5, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared = quantization.prepare_fx(model, get_default_qconfig_mapping("x86"), (x,))
        prepared(x)
        converted = quantization.convert_fx(prepared)
    assert (converted(x) - model(x)).abs().max() < 0.2
