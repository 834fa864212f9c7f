"""GoLU whose alpha, beta and gamma are tensors: values, gradients of all four, and the module that learns them."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from golu_core import GoLU, golu
from golu_core.activation import build_activation, gated
from golu_core.training.optim import AdamW, Sgd, parameter_groups

VALUES = {"alpha": 1.3, "beta": 0.6, "gamma": 1.7}
TENSORS = {name: torch.tensor(value, dtype=torch.float64) for name, value in VALUES.items()}
POINTS = torch.linspace(-6, 6, 25, dtype=torch.float64) + 0.013


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_values_are_those_of_numbers(dtype):
    x = torch.cat([POINTS, torch.tensor([-1e4, -100.0, 0.0, 100.0, 1e4])]).to(dtype)
    found = golu(
        x, **{name: tensor.to(torch.float32 if dtype.itemsize < 8 else dtype) for name, tensor in TENSORS.items()}
    )
    expected = golu(x, **VALUES)
    assert found.dtype == dtype
    assert torch.allclose(found, expected, rtol=4 * torch.finfo(dtype).eps, atol=4 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("shape", [(), (8,), (4, 1)])
def test_gradients_of_all_four(shape):
    x = POINTS[:24].reshape(3, 8)[:, None].repeat(1, 4, 1).clone().requires_grad_()
    own = [
        (tensor.expand(shape) + 0.1 * torch.rand(shape, dtype=torch.float64)).requires_grad_()
        for tensor in TENSORS.values()
    ]
    assert torch.autograd.gradcheck(golu, (x, *own))
    assert torch.autograd.gradgradcheck(golu, (x[0].detach().clone().requires_grad_(), *own))


def test_no_gradient_is_nan():
    x = torch.tensor([-math.inf, -1e38, -1e4, -50.0, -5.0, -0.0, 0.0, 50.0, 1e4, 1e38], requires_grad=True)
    own = [torch.tensor(value, requires_grad=True) for value in VALUES.values()]
    y = golu(x, *own)
    gradients = torch.autograd.grad(y[1:-1].sum(), [x, *own], retain_graph=True)
    assert not y.isnan().any() and not any(gradient.isnan().any() for gradient in gradients)
    assert golu(torch.tensor([math.nan]), *own).isnan().all()


def test_transforms():
    module = GoLU(**VALUES, learnable=True)
    x = torch.randn(4, 8)
    expected = GoLU(**VALUES)(x)
    assert torch.allclose(torch.compile(module, fullgraph=True, backend="eager")(x), expected, atol=1e-6)
    assert torch.allclose(torch.export.export(module, (x,)).module()(x), expected, atol=1e-6)
    assert torch.allclose(torch.func.vmap(module)(x), expected, atol=1e-6)
    parameters = dict(module.named_parameters())
    found = torch.func.grad(lambda p: torch.func.functional_call(module, p, (x,)).sum())(parameters)
    assert set(found) == {"log_alpha", "log_beta", "log_gamma"} and all(g.isfinite() for g in found.values())
    with torch.autocast("cpu", torch.bfloat16):
        assert module(nn.Linear(8, 8)(x)).dtype == torch.bfloat16


def test_the_module():
    module = GoLU(**VALUES, learnable=True)
    assert [getattr(module, name) for name in VALUES] == pytest.approx(list(VALUES.values()))
    assert set(module.state_dict()) == {"log_alpha", "log_beta", "log_gamma"} and not GoLU().state_dict()
    other = GoLU(learnable=True)
    other.load_state_dict(module.state_dict())
    assert other.beta == pytest.approx(0.6) and "learnable" in repr(other)
    other.gamma = 3.0
    assert other.gamma == pytest.approx(3.0) and copy.deepcopy(other).gamma == pytest.approx(3.0)
    with pytest.raises(ValueError, match="must be positive"):
        other.beta = -1.0
    with pytest.raises(ValueError, match="must be positive"):
        GoLU(alpha=0.0, learnable=True)
    x, up = torch.randn(4, 8), torch.randn(4, 8)
    assert torch.equal(gated(module, x, up), module(x) * up)


def test_it_stays_positive_and_learns():
    torch.manual_seed(0)
    module = GoLU(learnable=True)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    x = torch.linspace(-3, 3, 200)
    target = golu(x, 0.5, 2.0, 0.7)
    for _ in range(2000):
        optimizer.zero_grad()
        (module(x) - target).square().mean().backward()
        optimizer.step()
    assert [module.alpha, module.beta, module.gamma] == pytest.approx([0.5, 2.0, 0.7], rel=0.05)


@pytest.mark.parametrize(
    "optim", [Sgd(weight_decay=0.1, decay=decay) for decay in ("all", "but_norms")] + [AdamW(weight_decay=0.1)]
)
def test_no_weight_decay(optim):
    model = nn.Sequential(nn.Linear(4, 4), build_activation("golu(learnable=true)"))
    groups = parameter_groups(model, optim)
    own = {id(parameter) for parameter in model[1].parameters()}
    decayed = {id(parameter) for group in groups if group["weight_decay"] for parameter in group["params"]}
    assert len(own) == 3 and not own & decayed and id(model[0].weight) in decayed


def test_scripting_is_refused():
    with pytest.warns(FutureWarning), pytest.raises((RuntimeError, torch.jit.Error)):
        torch.jit.script(GoLU(learnable=True))(torch.randn(3))
