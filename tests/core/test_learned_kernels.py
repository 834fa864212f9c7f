"""The compiled kernels of GoLU with parameters that are tensors, against its expression in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from golu_core import GoLU, golu
from golu_core.activation import golu_expression
from golu_core.activation.compute import channel_layout, native
from golu_core.activation.compute.expression import golu_learned_expression
from golu_core.activation.compute.layout import KERNEL_DTYPES
from learned_cases import CASES, assert_as_the_expression, sample

pytestmark = pytest.mark.skipif(native.kernels() is None, reason="needs the compiled kernels")

EVERY_DTYPE = pytest.mark.parametrize("dtype", KERNEL_DTYPES, ids=str)


@EVERY_DTYPE
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients(case, dtype, level):
    x, parameters, gradient = sample(case, dtype)
    assert channel_layout.layout_of(x, parameters) is not None
    assert_as_the_expression(x, parameters, gradient)


@EVERY_DTYPE
def test_numbers_and_tensors_of_them_are_alike(dtype):
    x = torch.linspace(-8, 40, 4001).to(dtype)
    values = {"alpha": 1.3, "beta": 0.6, "gamma": 1.7}
    own = torch.float64 if dtype is torch.float64 else torch.float32
    found = golu(x, **{name: torch.tensor(value, dtype=own) for name, value in values.items()})
    assert torch.allclose(found, golu(x, **values), rtol=2 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("case", ["several sums", "long rows", "channels last", "features"])
def test_sums_do_not_depend_on_threads(case):
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            x, parameters, gradient = sample(case, torch.float32)
            found.append(torch.autograd.grad(golu(x, *parameters), [x, *parameters], gradient))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(one, two) for one, two in zip(found[0], other, strict=True))


@EVERY_DTYPE
def test_infinite_and_missing_numbers(dtype, level):
    x = torch.tensor([-math.inf, -1e4, -50.0, -0.0, 0.0, 50.0, 1e4, math.inf, math.nan], dtype=dtype)
    own = [torch.tensor(value, dtype=torch.float32, requires_grad=True) for value in (1.3, 0.6, 1.7)]
    y = golu(x.requires_grad_(), *own)
    plain = golu(x, 1.3, 0.6, 1.7)
    assert torch.allclose(y, plain, equal_nan=True)
    assert torch.equal(y.isnan(), torch.tensor([False] * 8 + [True]))
    assert all(gradient.isnan() for gradient in torch.autograd.grad(y[-1], own))
    known = x.detach()[:-1].clone().requires_grad_()
    of_x, of_alpha, of_beta, of_gamma = torch.autograd.grad(golu(known, *own).sum(), [known, *own])
    assert not of_x.isnan().any() and of_alpha == math.inf and of_beta.isfinite() and of_gamma.isfinite()


def test_only_what_is_wanted_has_a_gradient():
    x, parameters, gradient = sample("features", torch.float32)
    frozen = [parameters[0].detach(), parameters[1], parameters[2].detach()]
    whole = torch.autograd.grad(golu(x, *parameters), [x, *parameters], gradient)
    (alone,) = torch.autograd.grad(golu(x.detach(), *frozen), [parameters[1]], gradient)
    assert torch.equal(alone, whole[2])
    second = torch.autograd.grad(golu(x.detach(), *frozen).sum(), [parameters[1]], create_graph=True)[0].sum()
    assert torch.autograd.grad(second, [parameters[1]])[0].isfinite().all()


def test_higher_derivatives_and_batches_of_gradients():
    x, parameters, _ = sample("features", torch.float64)
    x = x.detach()[:2, :3, :4].clone().requires_grad_()
    own = [parameter.detach()[:4].clone().requires_grad_() for parameter in parameters]
    assert torch.autograd.gradcheck(golu, (x, *own))
    assert torch.autograd.gradgradcheck(golu, (x, *own))
    slow = torch.autograd.functional.jacobian(golu, (x, *own))
    fast = torch.autograd.functional.jacobian(golu, (x, *own), vectorize=True)
    assert all(torch.allclose(one, two) for one, two in zip(slow, fast, strict=True))


def test_higher_derivatives_of_one_tensor_in_several_places():
    """As where a module is called twice, so that its x depends on its own parameters."""
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    parameter = (torch.rand(4, dtype=torch.float64) + 0.6).requires_grad_()

    def shared(x: Tensor, parameter: Tensor) -> Tensor:
        return golu(golu(x, parameter, parameter, 0.7) + parameter, parameter, parameter.mean(), parameter)

    expected = torch.autograd.grad(shared(x, parameter).sum(), [x, parameter])
    found = torch.autograd.grad(shared(x, parameter).sum(), [x, parameter], create_graph=True)
    assert all(torch.allclose(one, other) for one, other in zip(found, expected, strict=True))
    assert torch.autograd.gradgradcheck(shared, (x, parameter))


def test_x_and_the_parameters_alone_are_kept():
    x = torch.randn(8, 64, 32, requires_grad=True)
    module = GoLU(learnable=True, shape=(32,))
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        module(x)
    assert sum(tensor.numel() for tensor in kept) <= x.numel() + 6 * 32


@EVERY_DTYPE
@pytest.mark.parametrize("shape", [(1, 2, 1 << 21), (2, 1 << 21)])
def test_sums_along_long_rows_are_exact(shape, dtype, level):
    """Of 2^22 terms of one sign, which one float32 number could not hold."""
    x = torch.linspace(0, 2, shape[-1]).expand(shape).to(dtype).contiguous()
    parameters = [torch.ones(2, 1, requires_grad=True) for _ in range(3)]
    found = torch.autograd.grad(golu(x, *parameters), parameters, torch.ones_like(x))
    wide = x.flatten()[: shape[-1]].double()
    decay = torch.exp(-wide)
    terms = (wide * torch.exp(-decay), -wide * decay * torch.exp(-decay), wide**2 * decay * torch.exp(-decay))
    for one, exact in zip(found, terms, strict=True):
        assert torch.allclose(one.double(), exact.sum().expand(2, 1), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("shape", "own"), [((4, 0), (0,)), ((0, 4), (4,)), ((3, 0), (3, 1)), ((0,), ()), ((2, 3, 0), (3, 1))]
)
def test_no_elements(shape, own):
    x, parameter = torch.empty(shape, requires_grad=True), torch.ones(own, requires_grad=True)
    y = golu(x, parameter, parameter, parameter)
    found = torch.autograd.grad(y.sum(), [x, parameter])
    assert [g.shape for g in found] == [shape, own] and not found[1].any()


@pytest.mark.parametrize("shapes", [((4, 1), (6,), ()), ((2, 1, 1), (6,), ())])
def test_parameters_in_two_dimensions_take_the_expression(shapes):
    x = torch.randn(2, 4, 6)
    parameters = [torch.rand(shape) + 0.5 for shape in shapes]
    assert channel_layout.layout_of(x, parameters) is None
    assert torch.equal(golu(x, *parameters), golu_learned_expression(x, *parameters))


def test_what_is_no_plain_memory_takes_the_expression():
    parameters = [torch.tensor(1.0) for _ in range(3)]
    x = torch.randn(3, 4)
    assert torch.allclose(torch.func.vmap(lambda row: golu(row, *parameters))(x), golu_expression(x), atol=1e-6)
    negative = torch.randn(4, dtype=torch.complex64).conj().imag
    assert negative.is_neg()
    assert torch.allclose(golu(negative, *parameters), golu_expression(negative.clone()), atol=1e-6)
    assert golu(x.to("meta"), *(p.to("meta") for p in parameters)).is_meta
