"""GoLU among torch's transforms, compilers and memory formats, on the CPU."""

import copy
import itertools
import math
import pickle
import subprocess
import sys
import threading

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.utils.checkpoint import checkpoint

from cpu_paths import PATHS, kernels_of
from golu_core import GoLU, golu
from golu_core.activation import golu_expression
from golu_core.activation.compute import native, plain
from golu_core.activation.compute.parameters import gate_range
from reference import golu_gradient, reference_forward, reference_gradient


@pytest.fixture(autouse=True, params=PATHS)
def computed_by(request, monkeypatch):
    """Each test with all that can compute GoLU on this machine."""
    kernels = kernels_of(request.param)
    monkeypatch.setattr(native, "kernels", lambda: kernels)


def sample(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0)) * 3


def test_gradcheck_of_first_and_second_order():
    x = sample(4, 5).requires_grad_()
    assert gradcheck(golu, x, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(golu, x)
    assert gradcheck(lambda t: golu(t, 2.0, 0.5, 1.5), x)


def test_second_order_at_the_extremes_is_finite():
    x = torch.tensor([-torch.inf, -1e30, -100.0, 100.0, 1e30, torch.inf], requires_grad=True)
    (first,) = torch.autograd.grad(golu(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    assert torch.equal(second, torch.zeros_like(second))


def test_forward_mode_at_the_extremes():
    x = torch.tensor([-torch.inf, -100.0, 0.0, 100.0, torch.inf])
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(golu(forward_ad.make_dual(x, torch.ones_like(x)))).tangent
    torch.testing.assert_close(tangent.double(), reference_gradient(x), rtol=1e-6, atol=1e-7)


def test_functional_transforms():
    x = sample(6)
    expected = reference_gradient(x)
    scalar_gradient = torch.func.grad(golu)
    torch.testing.assert_close(torch.func.vmap(scalar_gradient)(x), expected)
    torch.testing.assert_close(torch.func.vmap(golu)(sample(3, 6)), reference_forward(sample(3, 6)))
    torch.testing.assert_close(torch.func.jvp(golu, (x,), (torch.ones_like(x),))[1], expected)
    torch.testing.assert_close(torch.func.jacrev(golu)(x), torch.diag(expected))
    hessian = torch.func.hessian(lambda t: golu(t).sum())(x)
    torch.testing.assert_close(hessian, torch.diag(torch.func.vmap(torch.func.grad(scalar_gradient))(x)))


def test_one_tensor_is_saved_for_backward():
    saved = []
    x = sample(1000, dtype=torch.float32).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (saved.append(t), t)[1], lambda t: t):
        golu(x)
    assert len(saved) == 1
    assert saved[0].data_ptr() == x.data_ptr()


def test_activation_checkpointing_gives_the_same_gradient():
    x = sample(64, dtype=torch.float32).requires_grad_()
    (direct,) = torch.autograd.grad(golu(x).sum(), x)
    (recomputed,) = torch.autograd.grad(checkpoint(golu, x, use_reentrant=False).sum(), x)
    assert torch.equal(direct, recomputed)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_keeps_the_dtype(dtype):
    x = sample(16).to(dtype)
    with torch.autocast("cpu", dtype=dtype):
        assert golu(x).dtype == dtype
        assert golu_expression(x).dtype == dtype
        assert nn.Sequential(nn.Linear(16, 4), GoLU())(x.float()).dtype == dtype


def test_meta_and_fake_tensors():
    from torch._subclasses.fake_tensor import FakeTensorMode

    meta = golu(torch.empty(3, 4, device="meta", dtype=torch.bfloat16))
    assert meta.shape == (3, 4) and meta.is_meta and meta.dtype == torch.bfloat16
    with FakeTensorMode():
        fake = golu(torch.empty(3, 4, device="cuda"))
    assert fake.device.type == "cuda" and fake.shape == (3, 4)


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x.contiguous(memory_format=torch.channels_last),
        lambda x: x.transpose(0, 3),
        lambda x: x[:, ::2, 1:, :],
        lambda x: x[..., :1].expand(-1, -1, -1, 5),
        lambda x: x.flatten()[1:],
        lambda x: x[:0],
        lambda x: x.sum(),
    ],
    ids=["channels_last", "transposed", "strided", "expanded", "unaligned", "empty", "scalar"],
)
def test_memory_formats(make):
    x = make(sample(2, 4, 6, 5, dtype=torch.float32))
    expected = torch.relu(x)  # torch's own elementwise functions set the strides to match
    y = golu(x)
    assert y.shape == expected.shape and y.stride() == expected.stride()
    torch.testing.assert_close(y.double(), reference_forward(x), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(golu_gradient(golu, x).double(), reference_gradient(x), rtol=1e-5, atol=1e-6)


def test_gradient_of_another_memory_format():
    x = sample(2, 3, 4, 5, dtype=torch.float32).contiguous(memory_format=torch.channels_last).requires_grad_()
    incoming = sample(2, 3, 4, 5, dtype=torch.float32)
    golu(x).backward(incoming)
    torch.testing.assert_close(x.grad.double(), incoming * reference_gradient(x), rtol=1e-5, atol=1e-6)


def test_inference_mode_before_training():
    x = torch.randn(1 << 19)
    with torch.inference_mode():
        golu(x)
    assert torch.isfinite(golu_gradient(golu, x)).all()


def test_threads_do_not_share_scratch():
    inputs = [torch.full((1 << 19,), float(value)) for value in (-1, 2)]
    wrong = []

    def work(x):
        for _ in range(20):
            if not torch.allclose(golu(x), reference_forward(x[:1]).float()):
                wrong.append(x[0])

    threads = [threading.Thread(target=work, args=(x,)) for x in inputs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_module_is_copied_pickled_and_has_no_state():
    module = GoLU(alpha=2.0, beta=0.5)
    assert not module.state_dict() and not list(module.parameters())
    assert repr(module) == "GoLU(alpha=2, beta=0.5, gamma=1)"
    x = sample(7)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin(x), module(x))
    with pytest.raises(ValueError, match="gamma"):
        module.gamma = -1
    assert module.gamma == 1


def test_private_names_of_torch_are_there():
    assert isinstance(forward_ad._current_level, int)
    assert torch._C._functorch.peek_interpreter_stack() is None
    assert not torch._C._functorch.is_legacy_batchedtensor(torch.zeros(1))
    assert torch._C._len_torch_dispatch_stack() == 0
    assert torch._C._get_tracing_state() is None
    marked = torch.compiler.assume_constant_result(lambda: None)
    assert vars(plain.is_transformed) == vars(marked) != {}


def test_nan_gradient_is_not_hidden():
    x = torch.zeros(2, requires_grad=True)
    golu(x).backward(torch.tensor([torch.nan, 1.0]))
    assert x.grad[0].isnan() and not x.grad[1].isnan()


def test_a_twin_model_trains_alike():
    """The in-place implementation and the plain expression give one network the same losses."""

    class Plain(nn.Module):
        def forward(self, x):
            return x * torch.exp(-torch.exp(-x))

    def losses(activation):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 32), activation(), nn.Linear(32, 32), activation(), nn.Linear(32, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        x = torch.randn(256, 4)
        target = x.prod(dim=1, keepdim=True)
        history = []
        for _ in range(60):
            loss = nn.functional.mse_loss(model(x), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            history.append(loss.item())
        return history

    assert losses(GoLU) == pytest.approx(losses(Plain), rel=1e-5)


def test_a_model_is_built_on_the_meta_device_before_anything_else():
    code = "import torch; from golu_core import GoLU\nwith torch.device('meta'): print(GoLU())"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout.startswith(b"GoLU")


_MODES = [modes for order in (1, 2, 3) for modes in itertools.product("rf", repeat=order)]
_GATES = [(1.0, 1.0, 1.0), (2.0, 0.5, 1.5), (0.7, 3.0, 0.25)]


def _derivative(function, modes):
    """Of the order of `modes`, taken by reverse mode (r) or forward mode (f), the innermost first."""
    for mode in modes:
        inner = function
        if mode == "f":
            function = lambda x, inner=inner: torch.func.jvp(inner, (x,), (torch.ones_like(x),))[1]  # noqa: E731
        else:
            function = lambda x, inner=inner: torch.func.vjp(inner, x)[1](torch.ones_like(x))[0]  # noqa: E731
    return function


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("gate", _GATES, ids=str)
@pytest.mark.parametrize("learned", [False, True], ids=["numbers", "tensors"])
@pytest.mark.parametrize("modes", _MODES, ids="".join)
def test_no_derivative_has_a_zero_times_infinity(modes, learned, gate, dtype):
    edges = torch.tensor(gate_range(*gate[1:]), dtype=dtype)
    inward, outward = torch.nextafter(edges, torch.zeros_like(edges)), torch.nextafter(edges, 2 * edges)
    finite = torch.finfo(dtype)
    far = torch.tensor([finite.min, -1e4, -20.0, 0.0, 20.0, 1e4, finite.max], dtype=dtype)
    x = torch.cat([edges, inward, outward, far])
    parameters = [torch.tensor(value, dtype=dtype) for value in gate] if learned else gate
    assert _derivative(lambda x: golu(x, *parameters), modes)(x).isfinite().all()
    assert _derivative(lambda x: golu(x, *parameters), modes)(torch.full((), math.nan, dtype=dtype)).isnan()


@pytest.mark.parametrize("learned", [False, True], ids=["numbers", "tensors"])
@pytest.mark.parametrize("modes", _MODES, ids="".join)
def test_derivatives_at_infinity(modes, learned):
    x = torch.tensor([-math.inf, math.inf])
    parameters = torch.tensor(_GATES[1]) if learned else _GATES[1]
    expected = [0.0, 2.0 if len(modes) == 1 else 0.0]
    assert _derivative(lambda x: golu(x, *parameters), modes)(x).tolist() == expected
