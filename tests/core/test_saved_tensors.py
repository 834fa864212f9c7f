"""Saved-tensor hooks, which may hand GoLU's backward pass anything: right, or torch's own error, on every path."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from differential import EVERY_PATH, computed_by
from golu_core import golu
from golu_core.activation import gated_golu

SHAPE = (2, 3, 5, 3)


@pytest.fixture(params=EVERY_PATH, autouse=True)
def path(request, emulated):
    with computed_by(request.param, emulated):
        yield request.param


def sample(seed: int) -> Tensor:
    x = 3 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))
    return x.bfloat16().float().contiguous(memory_format=torch.channels_last)  # no bit is lost in a smaller type


class Marked(Tensor):
    pass


FORMS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "plain": lambda x, other, parameter: golu(x),
    "gated": lambda x, other, parameter: gated_golu(x, other),
    "scalars": lambda x, other, parameter: golu(x, parameter.mean(), 1.5),
    "channels": lambda x, other, parameter: golu(x, parameter.view(3, 1, 1), parameter.view(3, 1, 1)),
    "features": lambda x, other, parameter: golu(x, parameter, 1.0, parameter),
}
SAME_NUMBERS: dict[str, Callable[[Tensor], Tensor]] = {
    "float64": lambda t: t.double(),
    "bfloat16": lambda t: t.bfloat16(),
    "float16": lambda t: t.half(),
    "contiguous": lambda t: t.contiguous(),
    "reversed": lambda t: t.permute(tuple(range(t.ndim)[::-1])).contiguous().permute(tuple(range(t.ndim)[::-1])),
    "every second element": lambda t: torch.stack([t, t + 1], -1)[..., 0],
    "a negated view": lambda t: torch._neg_view(-t),
    "a subclass": lambda t: t.as_subclass(Marked),
}
OTHERS: dict[str, Callable[[Tensor], Tensor]] = {
    "a part": lambda t: t[:1] if t.ndim else t,
    "one number": lambda t: t.flatten()[0],
    "too many dimensions": lambda t: torch.stack([t, t]),
    "whole numbers": lambda t: t.int(),
    "nothing in memory": lambda t: t.to("meta"),
}


def gradients(form: str, unpacked: Callable[[Tensor], Tensor]) -> list[Tensor]:
    x, other = (sample(seed).requires_grad_() for seed in range(2))
    parameter = torch.tensor([0.75, 1.0, 1.25], requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, unpacked):
        y = FORMS[form](x, other, parameter)
    inputs = [x, *([other] if form == "gated" else []), *([parameter] if form not in ("plain", "gated") else [])]
    return list(torch.autograd.grad(y, inputs, sample(2)))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("hook", SAME_NUMBERS)
def test_the_same_numbers_in_another_form_give_the_same_gradients(form, hook, path):
    if hook in ("bfloat16", "float16") and form != "plain":
        return  # torch's operations next to GoLU's save numbers that a half type does not have
    found = gradients(form, lambda t: SAME_NUMBERS[hook](t) if t.is_floating_point() else t)
    for one, other in zip(found, gradients(form, lambda t: t), strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        torch.testing.assert_close(one, other, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("hook", OTHERS)
def test_another_tensor_is_an_error_or_gives_what_it_says(form, hook, path):
    """Never numbers of the memory behind it."""
    try:
        found = gradients(form, OTHERS[hook])
    except (RuntimeError, TypeError, NotImplementedError):
        return
    assert all(gradient.abs().max() < 1e3 for gradient in found)
