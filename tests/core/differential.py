"""Random calls of GoLU, each a function of its seed, against the paper's formula in float64.

To repeat one, in this folder: `python -c "import differential; differential.repeat('avx2', 1234)"`.
"""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cpu_paths import DTYPES, PATHS, kernels_of
from emulation import emulation, launch_on
from golu_core import golu
from golu_core.activation import functional, gated_golu
from golu_core.activation.compute import kernel, learned, learned_cuda, native

EMULATED, TRACED = "emulated CUDA", "what torch.compile traces"
EVERY_PATH = [*PATHS, EMULATED, TRACED]
SIZES = (1, 1, 2, 3, 3, 4, 5, 6, 8, 9, 16, 17)
LARGEST = 3000
"""Elements of most cases; the others are one dimension of up to 40,000 beside small ones."""


@dataclass(frozen=True)
class Case:
    """One call: parameters are numbers, or the shapes of tensors; the layouts are those of x and of the gradient."""

    form: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    layout: str
    gradient_layout: str
    parameters: tuple[float | tuple[int, ...], ...]
    parameter_dtype: torch.dtype


def case_of(seed: int) -> Case:
    """The call of a seed."""
    draw = random.Random(seed)
    form = draw.choice(["plain", "gated", "tensors", "tensors", "tensors"])
    shape = _shape(draw)
    dtype = draw.choice(DTYPES)
    numbers = [draw.choice([1.0, draw.uniform(0.4, 1.8)]) for _ in range(3)]
    parameters = tuple(_parameter_shapes(draw, shape, numbers) if form == "tensors" else numbers)
    own = draw.choice([torch.float64 if dtype is torch.float64 else torch.float32, torch.float64, dtype])
    return Case(form, shape, dtype, draw.choice(list(LAYOUTS)), draw.choice(list(LAYOUTS)), parameters, own)


def _shape(draw: random.Random) -> tuple[int, ...]:
    while True:
        shape = [draw.choice(SIZES) for _ in range(draw.choice([0, 1, 2, 3, 4, 4, 4, 5, 5]))]
        if math.prod(shape) > LARGEST:
            continue
        if shape and draw.random() < 0.04:
            shape[draw.randrange(len(shape))] = draw.choice([4095, 4096, 4097, 9000]) if math.prod(shape) < 10 else 0
        return tuple(shape)


def _parameter_shapes(draw: random.Random, shape: tuple[int, ...], numbers: list[float]) -> Iterator[Any]:
    """Mostly of one dimension, which all share; sometimes of none or of several, or a number beside tensors."""
    own = [draw.randrange(len(shape))] if shape else []
    if len(shape) > 1 and draw.random() < 0.1:
        own = draw.sample(range(len(shape)), 2)
    is_number = draw.randrange(6)  # which of the three, if any
    for place, number in enumerate(numbers):
        if place == is_number:
            yield number
            continue
        dimensions = own if draw.random() < 0.8 else own[:1] if draw.random() < 0.3 else []
        sizes = [size if at in dimensions else 1 for at, size in enumerate(shape)]
        while sizes and sizes[0] == 1 and draw.random() < 0.7:
            sizes.pop(0)
        yield tuple(sizes)


# --------------------------------------------------------------------------------------------------- layouts in memory


def _last_channels(empty: Tensor, draw: random.Random) -> Tensor:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    if empty.ndim in formats:
        return empty.contiguous(memory_format=formats[empty.ndim])
    return empty.movedim(1, -1).contiguous().movedim(-1, 1) if empty.ndim > 1 else empty


def _permuted(empty: Tensor, draw: random.Random) -> Tensor:
    order = draw.sample(range(empty.ndim), empty.ndim)
    return empty.permute(order).contiguous().permute([order.index(at) for at in range(empty.ndim)])


def _expanded(empty: Tensor, draw: random.Random) -> Tensor:
    if not empty.ndim or not empty.numel():
        return empty
    return empty.narrow(draw.randrange(empty.ndim), 0, 1).clone().expand(empty.shape)


def _strange(empty: Tensor, draw: random.Random) -> Tensor:
    """Dense, with strides that mean nothing where a dimension has one element."""
    dense = draw.choice([_last_channels, _permuted])(empty, draw)
    strides = [draw.choice([1, 2, 777]) if n == 1 else s for n, s in zip(dense.shape, dense.stride(), strict=True)]
    return dense.as_strided(dense.shape, strides)


def _part(empty: Tensor, at: int, start: int, wider: int, step: int = 1) -> Tensor:
    """Of a tensor that is wider in one dimension."""
    if not empty.ndim:
        return empty.new_empty(start + 1)[start]
    shape = list(empty.shape)
    shape[at] = shape[at] * step + wider
    return (
        empty.new_empty(shape)
        .narrow(at, start, empty.shape[at] * step)
        .transpose(at, -1)[..., ::step]
        .transpose(at, -1)
    )


LAYOUTS: dict[str, Callable[[Tensor, random.Random], Tensor]] = {
    "contiguous": lambda empty, draw: empty,
    "channels last": _last_channels,
    "reversed": lambda empty, draw: empty.new_empty(empty.shape[::-1]).permute(tuple(range(empty.ndim)[::-1])),
    "permuted": _permuted,
    "every second element": lambda empty, draw: _part(empty, -1, 0, 0, step=2),
    "every second row": lambda empty, draw: _part(empty, 0, 0, 0, step=2),
    "half": lambda empty, draw: _part(empty, -1, 0, max(empty.shape[-1:], default=1)),
    "part of wider rows": lambda empty, draw: _part(empty, -1, 1, 3),
    "not aligned": lambda empty, draw: empty.new_empty(empty.numel() + 1)[1:].view(empty.shape),
    "expanded": _expanded,
    "strange strides": _strange,
}


def _tensor(layout: str, shape: tuple[int, ...], dtype: torch.dtype, draw: random.Random) -> Tensor:
    placed = LAYOUTS[layout](torch.zeros(shape, dtype=dtype), draw)
    generator = torch.Generator().manual_seed(draw.randrange(2**31))
    filled = placed
    for at, stride in enumerate(placed.stride()):
        if stride == 0 and placed.shape[at] > 1:
            filled = filled.narrow(at, 0, 1)
    filled.copy_(3 * torch.randn(filled.shape, generator=generator))
    assert placed.shape == shape
    return placed


# ------------------------------------------------------------------------------------------------------------ the check


def disagreement(seed: int) -> str | None:
    """What is wrong with the call of a seed, None if nothing is."""
    try:
        return _disagreement(seed)
    except Exception as error:  # the other calls are checked all the same
        return f"{type(error).__name__}: {error}"


def _disagreement(seed: int) -> str | None:
    case, draw = case_of(seed), random.Random(~seed)
    inputs = [_tensor(case.layout, case.shape, case.dtype, draw) for _ in range(1 + (case.form == "gated"))]
    incoming = _tensor(case.gradient_layout, case.shape, case.dtype, draw)
    parameters: list[Any] = list(case.parameters)
    for at, given in enumerate(parameters):
        if isinstance(given, tuple):
            generator = torch.Generator().manual_seed(draw.randrange(2**31))
            parameters[at] = (torch.rand(given, generator=generator) + 0.6).to(case.parameter_dtype)
    leaves = [t.detach().requires_grad_() for t in (*inputs, *(p for p in parameters if isinstance(p, Tensor)))]
    rest = iter(leaves[len(inputs) :])
    given = [next(rest) if isinstance(p, Tensor) else p for p in parameters]
    y = (gated_golu if case.form == "gated" else golu)(*leaves[: len(inputs)], *given)
    found = torch.autograd.grad(y, leaves, incoming)
    exact = [t.detach().double().contiguous().requires_grad_() for t in leaves]
    rest = iter(exact[len(inputs) :])
    wide = [next(rest) if isinstance(p, Tensor) else p for p in parameters]
    expected = _formula(exact[: len(inputs)], wide)
    wanted = torch.autograd.grad(expected, exact, incoming.double())
    if y.dtype != case.dtype or y.shape != case.shape:
        return f"the result is {y.dtype} of {tuple(y.shape)}"
    names = ["y", *(["x", "other"] if case.form == "gated" else ["x"]), *["a parameter"] * 3]
    for name, one, other, leaf in zip(names, (y, *found), (expected, *wanted), (y, *leaves), strict=False):
        if one.shape != leaf.shape or one.dtype != leaf.dtype:
            return f"the gradient of {name} is {one.dtype} of {tuple(one.shape)}"
        error = (one.double() - other).abs().max().item() if one.numel() else 0.0
        if not error <= (allowed := _allowed(name, one, other, leaves[0], incoming)):
            return f"{name} is off by {error:.3g}, and {allowed:.3g} is allowed"
    return None


def _formula(inputs: list[Tensor], parameters: list[Any]) -> Tensor:
    alpha, beta, gamma = parameters
    value = inputs[0] * alpha * torch.exp(-beta * torch.exp(-gamma * inputs[0]))
    return value * inputs[1] if len(inputs) > 1 else value


def _allowed(name: str, found: Tensor, exact: Tensor, x: Tensor, incoming: Tensor) -> float:
    """Rounding to the result's type, and the error of the computation, which is in float32 but for float64."""
    computed = 1e-14 if x.dtype is torch.float64 else 2e-6
    largest = float(exact.detach().abs().max()) if exact.numel() else 0.0
    scale = max(1.0, largest)
    if name == "a parameter":
        scale += 10 * math.sqrt(x.numel())  # of a sum whose terms may cancel
    return torch.finfo(found.dtype).eps * largest + computed * scale + torch.finfo(found.dtype).smallest_normal


# ------------------------------------------------------------------------------------------------------------ the paths


@cache
def _emulated() -> Any:
    return emulation(Path(tempfile.mkdtemp(prefix="golu-")))


@contextmanager
def computed_by(path: str, library: Any = None) -> Iterator[None]:
    """All of GoLU, by one of `EVERY_PATH`."""
    with pytest.MonkeyPatch.context() as patch:
        if path == EMULATED:
            launch_on(library or _emulated(), patch)
            patch.setattr(functional, "_implementation", lambda x: kernel)
            patch.setattr(learned, "_implementation", lambda x: learned_cuda)
        elif path == TRACED:
            patch.setattr(torch.compiler, "is_compiling", lambda: True)
        else:
            kernels = kernels_of(path)
            patch.setattr(native, "kernels", lambda: kernels)
        yield


def wrong_cases(path: str, seeds: range, library: Any = None) -> list[str]:
    """The calls that disagree on one of the paths, with what repeats each."""
    with computed_by(path, library):
        found = {seed: disagreement(seed) for seed in seeds}
    return [
        f"{problem}: {case_of(seed)}; differential.repeat({path!r}, {seed})"
        for seed, problem in found.items()
        if problem is not None
    ]


def repeat(path: str, seed: int) -> None:
    """Prints what the call of a seed does on one of the paths."""
    print(case_of(seed), *wrong_cases(path, range(seed, seed + 1)) or ["right"], sep="\n")
