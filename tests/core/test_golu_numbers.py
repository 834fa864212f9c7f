"""GoLU's values and gradients on the CPU, against float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cpu_paths import PATHS, kernels_of
from golu_core import golu
from golu_core.activation import gated_golu, golu_expression
from golu_core.activation.compute import eager, native
from golu_core.activation.compute.layout import KERNEL_DTYPES
from reference import golu_gradient, reference_forward, reference_gradient, ulp_error

HALF_TYPES = [torch.float16, torch.bfloat16]


@pytest.fixture(autouse=True, params=PATHS)
def computed_by(request, monkeypatch):
    """Each test with all that can compute GoLU on this machine."""
    kernels = kernels_of(request.param)
    monkeypatch.setattr(native, "kernels", lambda: kernels)


def plain_expression(x):
    return x * torch.exp(-torch.exp(-x))


def grid(low, high, count=2_000_000):
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(count, generator=generator, dtype=torch.float64) * (high - low) + low).float()


@pytest.mark.parametrize("function", [golu, golu_expression])
def test_absolute_error_in_float32(function):
    x = torch.cat([grid(-100, 100), grid(-6, 6)])
    for value, reference in [
        (function(x), reference_forward(x)),
        (golu_gradient(function, x), reference_gradient(x)),
    ]:
        error = (value.double() - reference).abs() / reference.abs().clamp(min=1)
        assert error.max() <= 3e-7


@pytest.mark.parametrize(("low", "high"), [(-1, -0.5), (-0.5, 0), (0, 1), (1, 4), (4, 100)])
def test_four_units_in_the_last_place_right_of_minus_one(low, high):
    x = grid(low, high)
    assert ulp_error(golu(x), reference_forward(x)).max() <= 4


@pytest.mark.parametrize(("low", "high"), [(-5.5, -4), (-4, -3), (-3, -2), (-2, -1), (-1, 0), (0, 1), (1, 5), (5, 20)])
def test_error_is_at_most_twice_that_of_the_plain_expression(low, high):
    x = grid(low, high)
    for function, reference in [
        (lambda f: f(x), reference_forward(x)),
        (lambda f: golu_gradient(f, x), reference_gradient(x)),
    ]:
        ours = (function(golu).double() - reference).abs().max()
        plain = (function(plain_expression).double() - reference).abs().max()
        assert ours <= 2 * plain


def test_float64_is_exact_to_its_own_precision():
    x = torch.linspace(-6, 40, 100_001, dtype=torch.float64)
    torch.testing.assert_close(golu(x), reference_forward(x), rtol=1e-13, atol=1e-16)
    torch.testing.assert_close(golu_gradient(golu, x), reference_gradient(x), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("dtype", HALF_TYPES)
@pytest.mark.parametrize("function", [golu, golu_expression])
def test_half_types_are_the_float32_result_rounded_once(dtype, function):
    x = torch.cat([grid(-12, 12), grid(-100, 100)]).to(dtype)
    step = torch.finfo(dtype).eps
    for value, reference in [
        (function(x), reference_forward(x)),
        (golu_gradient(function, x), reference_gradient(x)),
    ]:
        assert value.dtype == dtype
        allowed = reference.abs() * (step / 2) * 1.01 + torch.finfo(dtype).tiny * step + 1e-6 * reference.abs()
        near_zero = 3e-7  # the gradient crosses zero near x = -0.567, where float32 itself has this absolute error
        assert ((value.double() - reference).abs() <= allowed + near_zero).all()


@pytest.mark.parametrize("function", [golu, golu_expression])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALF_TYPES])
@pytest.mark.parametrize("parameters", [(1.0, 1.0, 1.0), (2.5, 0.3, 4.0), (0.5, 1e-6, 1e6), (3.0, 1e6, 1e-6)])
def test_extremes(function, dtype, parameters):
    alpha = parameters[0]
    largest = torch.finfo(dtype).max
    x = torch.tensor([-math.inf, -largest, largest, math.inf, math.nan, 0.0, -0.0], dtype=dtype)
    y = function(x, *parameters)
    gradient = golu_gradient(lambda t: function(t, *parameters), x)
    if parameters[2] == 1.0 or parameters[2] > 1:
        assert y[0] == 0 and y[1] == 0
        assert gradient[0] == 0 and gradient[1] == 0
        assert gradient[2:4].tolist() == pytest.approx([alpha, alpha])
    assert y[3].item() == math.inf
    assert y[4].isnan() and gradient[4].isnan()
    assert y[5] == 0 and y[6] == 0
    finite_or_infinite = torch.tensor([0, 1, 2, 3, 5, 6])
    assert not y[finite_or_infinite].isnan().any()
    assert not gradient[finite_or_infinite].isnan().any()


@settings(max_examples=200, deadline=None)
@given(
    x=st.floats(width=32, allow_nan=False),
    alpha=st.floats(1e-6, 1e6),
    beta=st.floats(1e-6, 1e6),
    gamma=st.floats(1e-6, 1e6),
)
def test_never_nan_and_bounded_by_alpha(x, alpha, beta, gamma):
    tensor = torch.tensor([x], dtype=torch.float64)
    y = golu(tensor, alpha, beta, gamma)
    gradient = golu_gradient(lambda t: golu(t, alpha, beta, gamma), tensor)
    assert not y.isnan().any() and not gradient.isnan().any()
    assert y.abs() <= alpha * abs(x) * (1 + 1e-12)


@pytest.mark.parametrize("parameters", [(2.0, 0.5, 3.0), (0.1, 20.0, 0.2)])
def test_parameters(parameters):
    x = torch.linspace(-8, 8, 4001)
    torch.testing.assert_close(golu(x, *parameters).double(), reference_forward(x, *parameters), rtol=1e-5, atol=1e-6)
    gradient = golu_gradient(lambda t: golu(t, *parameters), x)
    torch.testing.assert_close(gradient.double(), reference_gradient(x, *parameters), rtol=1e-5, atol=1e-5)


def test_chunks_give_what_one_piece_gives():
    piece = eager._SMALL + 1001
    x = torch.randn(20 * piece, generator=torch.Generator().manual_seed(1))
    pieces = torch.cat([golu(part) for part in x.split(piece)])
    torch.testing.assert_close(golu(x), pieces, rtol=3e-7, atol=0)


def test_published_values():
    # gate(0) = 1/e; GoLU's minimum lies where 1 + x exp(-x) = 0, at x = -W(1) = -0.5671
    x = torch.tensor([0.0, 1.0, -0.56714329], dtype=torch.float64)
    expected = torch.tensor([0.0, math.exp(-math.exp(-1)), -0.56714329 * math.exp(-1 / 0.56714329)]).double()
    torch.testing.assert_close(golu(x), expected, rtol=1e-7, atol=0)
    assert golu_gradient(golu, x)[2].abs() < 1e-8


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, 1e7, "1", True])
@pytest.mark.parametrize("name", ["alpha", "beta", "gamma"])
def test_a_parameter_that_is_not_positive_is_refused(name, value):
    with pytest.raises(ValueError, match=f"GoLU's {name} must be"):
        golu(torch.zeros(1), **{name: value})


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(TypeError, match=str(dtype)):
        golu(torch.zeros(2, dtype=dtype))


@pytest.mark.parametrize("dtype", KERNEL_DTYPES, ids=str)
def test_float16_is_not_flushed(dtype):
    """Its subnormal numbers are normal ones in float32, so that they stay where torch flushes subnormal numbers."""
    tiny = torch.finfo(torch.float16).smallest_normal * torch.linspace(-2, 2, 2049)
    x, normal = tiny.to(dtype), torch.linspace(-3, 3, 2049).to(dtype)

    def results():
        leaves = [t.clone().requires_grad_() for t in (x, normal)]
        values = golu(leaves[0]), golu(leaves[1]), gated_golu(*leaves)
        return [*values, *torch.autograd.grad(values, leaves, [normal, x, x])]

    expected = results()
    if not torch.set_flush_denormal(True):
        pytest.skip("needs a processor that flushes subnormal numbers")
    try:
        found = results()
    finally:
        torch.set_flush_denormal(False)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
