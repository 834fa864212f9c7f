"""GoLU with learned parameters, forward and backward: its kernels beside the expression, fixed parameters and PReLU."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from golu_core import golu
from golu_core.activation.compute.expression import golu_learned_expression
from measuring import Row, interleaved

_Shapes = dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
_ON_CPU: _Shapes = {
    "64 x 64, one of each": ((64, 64), ()),
    "64 images of 64 x 20 x 20, one of each": ((64, 64, 20, 20), ()),
    "64 images of 64 x 20 x 20, each channel": ((64, 64, 20, 20), (64, 1, 1)),
    "16 x 128 x 512 features, each channel": ((16, 128, 512), (512,)),
}
_ON_GPU: _Shapes = {
    "64 x 64, one of each": ((64, 64), ()),
    "256 images of 64 x 56 x 56, one of each": ((256, 64, 56, 56), ()),
    "256 images of 64 x 56 x 56, each channel": ((256, 64, 56, 56), (64, 1, 1)),
    "256 images of 512 x 7 x 7, each channel": ((256, 512, 7, 7), (512, 1, 1)),
    "32 x 1024 x 3072 features, each channel": ((32, 1024, 3072), (3072,)),
}


def learned_rows(threads: list[int]) -> list[Row]:
    """Median microseconds of a forward and backward pass, by threads on a CPU and by dtype on a GPU."""
    if torch.cuda.is_available():
        return [
            {"dtype": str(dtype).removeprefix("torch."), "x": name, **_microseconds(shape, own, dtype, "cuda")}
            for dtype in (torch.float32, torch.bfloat16)
            for name, (shape, own) in _ON_GPU.items()
        ]
    rows: list[Row] = []
    for count in threads:
        torch.set_num_threads(count)
        for name, (shape, own) in _ON_CPU.items():
            rows.append({"threads": count, "x": name, **_microseconds(shape, own, torch.float32, "cpu")})
    return rows


def _microseconds(shape: tuple[int, ...], own: tuple[int, ...], dtype: torch.dtype, device: str) -> dict[str, float]:
    x = torch.randn(shape, dtype=dtype, device=device, requires_grad=True)
    gradient = torch.randn_like(x)
    learned = [torch.ones(own, device=device, requires_grad=True) for _ in range(3)]
    prelu = nn.PReLU(device=device, dtype=dtype)

    def both(function: Callable[[], Tensor], inputs: list[Tensor]) -> Callable[[], None]:
        def run() -> None:
            torch.autograd.grad(function(), inputs, gradient)
            if device == "cuda":
                torch.cuda.synchronize()

        return run

    times = interleaved(
        {
            "silu": both(lambda: F.silu(x), [x]),
            "prelu": both(lambda: prelu(x), [x, prelu.weight]),
            "golu": both(lambda: golu(x), [x]),
            "learned": both(lambda: golu(x, *learned), [x, *learned]),
            "learned, as expression": both(lambda: golu_learned_expression(x, *learned), [x, *learned]),
        },
        25,
        5,
    )
    found = {name: 1e6 * statistics.median(values) for name, values in times.items()}
    return {**found, "learned / silu": found["learned"] / found["silu"]}
