"""What GoLU's parameters may be: one rule on every path that can compute it, for numbers and for tensors."""

from __future__ import annotations

import math
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor

from differential import EVERY_PATH, computed_by
from golu_core import GoLU, golu
from golu_core.activation import gated_golu
from reference import reference_forward

NAMES = ("alpha", "beta", "gamma")
FORMS = {"golu": golu, "gated": lambda x, *p, **named: gated_golu(x, torch.ones_like(x), *p, **named)}


@pytest.fixture(params=EVERY_PATH, autouse=True)
def path(request, emulated):
    with computed_by(request.param, emulated):
        yield request.param


def sample(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return (3 * torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).to(dtype)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("wrong", NAMES)
@pytest.mark.parametrize("shape", [(), (4,), (3, 1)])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.filterwarnings("error")
def test_where_a_tensor_is_not_positive_all_is_nan_and_nowhere_else(form, shape, wrong, value):
    parameters = {name: torch.full(shape, 0.8) for name in NAMES}
    spoiled = parameters[wrong].flatten()
    spoiled[-1] = value
    parameters[wrong] = spoiled.view(shape)
    leaves = [x.requires_grad_() for x in (sample(3, 4), *parameters.values())]
    y = FORMS[form](leaves[0], *leaves[1:])
    of_x, *of_parameters = torch.autograd.grad(y.sum(), leaves)
    reached = torch.zeros(shape, dtype=torch.bool)
    reached.view(-1)[-1] = True
    assert torch.equal(y.isnan(), reached.expand(3, 4)) and torch.equal(of_x.isnan(), reached.expand(3, 4))
    assert all(torch.equal(gradient.isnan(), reached) for gradient in of_parameters)


@pytest.mark.parametrize(
    ("shape", "own"), [((3,), (4, 3)), ((3,), (1, 3)), ((), (1,)), ((5, 3), (2,)), ((1, 3), (2, 1))]
)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", FORMS)
def test_a_tensor_that_does_not_broadcast_to_x_is_refused(form, name, shape, own):
    with pytest.raises(ValueError, match=f"GoLU's {name} must broadcast to x's shape"):
        FORMS[form](sample(*shape), **{name: torch.ones(own)})


def test_a_learnable_module_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"to x's shape \(2, 5\), which its shape \(4,\) does not"):
        GoLU(learnable=True, shape=(4,))(sample(2, 5))


NOT_NUMBERS: list[Any] = [0.0, -1.0, math.nan, 1e7, True, "1", None, [1.0], numpy.array(0.5), numpy.array([1.0, 2.0])]


@pytest.mark.parametrize("value", NOT_NUMBERS, ids=repr)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("beside", [(), NAMES], ids=["numbers", "tensors"])
@pytest.mark.parametrize("form", FORMS)
def test_what_is_no_positive_number_is_refused_beside_numbers_and_tensors(form, beside, name, value):
    parameters = {other: torch.tensor(1.0) for other in beside} | {name: value}
    with pytest.raises(ValueError, match=f"GoLU's {name} must be"):
        FORMS[form](sample(3), **parameters)


@pytest.mark.parametrize("form", FORMS)
def test_a_complex_parameter_is_refused(form):
    with pytest.raises(TypeError, match="GoLU's beta must be real"):
        FORMS[form](sample(3), beta=torch.ones((), dtype=torch.complex64))


@pytest.mark.parametrize("default", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("tensor", NAMES)
def test_a_number_beside_a_tensor_is_exact(tensor, dtype, default):
    numbers = {"alpha": 1.3, "beta": 0.7, "gamma": 1.1}
    x = sample(500, dtype=dtype)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(default)
        found = golu(x, **numbers | {tensor: torch.tensor(numbers[tensor], dtype=dtype)})
    finally:
        torch.set_default_dtype(before)
    assert found.dtype == dtype
    torch.testing.assert_close(
        found.double(), reference_forward(x, **numbers), rtol=0, atol=1e-14 if dtype is torch.float64 else 2e-5
    )
