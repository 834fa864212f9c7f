"""Tensors and parameters for GoLU with parameters that are tensors, and what its kernels must agree with."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from golu_core import golu
from golu_core.activation.compute import learned_cpu
from golu_core.activation.compute.expression import golu_learned_expression

ROW = learned_cpu._ROW
# shape of x, shape of each parameter, and how x lies in memory
CASES = {
    "no dimension": ((), ((), (), ()), None),
    "one": ((1,), ((), (), ()), None),
    "a tail": ((37,), ((), (), ()), None),
    "several sums": ((3 * ROW + 5,), ((), (), ()), None),
    "transposed, one parameter": ((50, 70), ((), (), ()), "transposed"),
    "images": ((2, 3, 5, 7), ((3, 1, 1), (3, 1, 1), (3, 1, 1)), None),
    "long rows": ((2, 3, 80, 90), ((3, 1, 1), (3, 1, 1), (3, 1, 1)), None),
    "channels last": ((2, 19, 6, 7), ((19, 1, 1), (19, 1, 1), (19, 1, 1)), torch.channels_last),
    "channels last, 3d": ((2, 19, 3, 4, 5), ((19, 1, 1, 1), (19, 1, 1, 1), (19, 1, 1, 1)), torch.channels_last_3d),
    "features": ((5, 31, 48), ((48,), (48,), (48,)), None),
    "few features": ((200, 3), ((3,), (3,), (3,)), None),
    "features, transposed": ((48, 31), ((31,), (31,), (31,)), "transposed"),
    "features, every second": ((40, 50), ((25,), (25,), (25,)), "strided"),
    "rows": ((6, 9), ((6, 1), (6, 1), (6, 1)), None),
    "some of one value": ((4, 5, 6), ((), (6,), (1, 1)), None),
    "with leading ones": ((4, 5, 6), ((1, 1, 6), (1, 6), (6,)), None),
}


def sample(case: str, dtype: torch.dtype, device: str = "cpu") -> tuple[Tensor, list[Tensor], Tensor]:
    """x, its parameters and the gradient of the output, each alike on any device."""
    shape, shapes, lies = CASES[case]
    random = torch.Generator().manual_seed(0)
    x, gradient = (4 * torch.randn(shape, generator=random) for _ in range(2))
    if lies == "transposed":
        x = x.T.contiguous().T
    elif lies == "strided":
        x = x[:, ::2]
        gradient = gradient[:, ::2]
    elif lies is not None:
        x = x.to(memory_format=lies)
    own = torch.float64 if dtype is torch.float64 else torch.float32
    parameters = [(torch.rand(s, generator=random) + 0.6).to(device, own).requires_grad_() for s in shapes]
    return x.to(device, dtype).requires_grad_(), parameters, gradient.to(device, dtype)


def assert_as_the_expression(x: Tensor, parameters: list[Tensor], gradient: Tensor) -> None:
    """Values and all four gradients, by kernels and not by the expression, which stands for them in float64."""
    y = golu(x, *parameters)
    found = torch.autograd.grad(y, [x, *parameters], gradient)
    exact = [tensor.detach().double().requires_grad_() for tensor in (x, *parameters)]
    expected = golu_learned_expression(*exact)
    assert y.dtype == x.dtype and y.stride() == torch.empty_like(x).stride()
    assert type(y.grad_fn).__name__ == "_LearnedGoLUBackward"
    eps = torch.finfo(x.dtype).eps
    wanted = torch.autograd.grad(expected, exact, gradient.double())
    for name, one, other in zip(("y", "x", "alpha", "beta", "gamma"), (y, *found), (expected, *wanted), strict=True):
        assert one.shape == other.shape, name
        # sums are taken in the precision of the computation, whatever x's is
        step = eps if name in ("y", "x") else min(eps, torch.finfo(torch.float32).eps) * math.sqrt(x.numel() + 1)
        assert (
            float((one.double() - other).detach().abs().max()) <= 20 * step * float(other.detach().abs().max()) + 1e-30
        )
    with torch.no_grad():
        assert torch.equal(golu(x, *parameters), y)
