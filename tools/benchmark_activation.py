"""GoLU beside torch's activations: forward and backward, on the CPU by time and on a GPU by events and bandwidth."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from golu_core.activation import gated_golu, golu, golu_expression
from golu_core.activation.compute import eager
from golu_core.activation.compute.parameters import gompertz_parameters
from measuring import Row, interleaved

Provider = Callable[[Tensor], Tensor]
_GPU_SIZES = [10**5, 10**6, 10**7, 10**8, 2 * 10**8]
_GPU_ROW = 400
"""Elements of a row in the gated form: halves of 200 are whole vectors of every dtype, and divide 10,000."""
_SLEEP_CYCLES = 4_000_000
"""Two milliseconds and more, in which the host queues any call."""
_CPU_SIZES = [10**k for k in range(3, 8)]


def plain_expression(x: Tensor) -> Tensor:
    """GoLU as one would write it down."""
    return x * torch.exp(-torch.exp(-x))


class _TorchOperations(torch.autograd.Function):
    """GoLU as it is computed where there are no compiled kernels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return eager.golu_forward(x, gompertz_parameters(1.0, 1.0, 1.0))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return eager.golu_backward(gradient, x, gompertz_parameters(1.0, 1.0, 1.0))


def providers(compiled: bool) -> dict[str, Provider]:
    """The functions that are compared."""
    found: dict[str, Provider] = {
        "golu": golu,
        "relu": F.relu,
        "gelu": F.gelu,
        "silu": F.silu,
        "mish": F.mish,
        "plain expression": plain_expression,
        "golu by torch operations": _TorchOperations.apply,
        "golu_expression": golu_expression,
        "gated golu": _gated_golu,
        "gated silu": _gated_silu,
    }
    if compiled:
        found["compiled golu"] = torch.compile(golu, dynamic=True)
        found["compiled silu"] = torch.compile(F.silu, dynamic=True)
        found["compiled plain expression"] = torch.compile(plain_expression, dynamic=True)
    return found


def _gated_golu(x: Tensor) -> Tensor:
    gate, other = x.chunk(2, -1)
    return gated_golu(gate, other)


def _gated_silu(x: Tensor) -> Tensor:
    gate, other = x.chunk(2, -1)
    return F.silu(gate) * other


def microseconds(times: list[float]) -> Row:
    """Median, and the middle half of the measurements."""
    low, middle, high = statistics.quantiles(times, n=4) if len(times) > 1 else (times[0],) * 3
    return {"median_us": 1e6 * middle, "quartiles_us": [1e6 * low, 1e6 * high]}


# ------------------------------------------------------------------------------------------------------------ on a CPU


def activation_on_cpu(sizes: list[int] | None, threads: list[int], compiled: bool) -> list[Row]:
    """Microseconds of forward plus backward, and GoLU's time as a multiple of each; rows of 512 in the gated form."""
    rows: list[Row] = []
    for thread_count in threads:
        torch.set_num_threads(thread_count)
        for dtype in (torch.float32, torch.bfloat16):
            for size in sizes or _CPU_SIZES:
                rows += _cpu_rows(dtype, size, thread_count, compiled)
    return rows


def _cpu_rows(dtype: torch.dtype, size: int, threads: int, compiled: bool) -> list[Row]:
    wide = torch.randn(-(-size // 512), 2, 256).to(dtype).view(-1, 512)
    plain = torch.randn(size).to(dtype).requires_grad_()
    incoming = torch.randn(size).to(dtype)
    half = torch.randn(len(wide), 256).to(dtype)
    tasks = {
        name: _training_call(f, *((wide.requires_grad_(), half) if name.startswith("gated") else (plain, incoming)))
        for name, f in providers(compiled).items()
    }
    times = interleaved(tasks, rounds=21 if size < 5_000_000 else 7, repeats=max(1, 200_000 // size), settle=True)
    medians = {name: microseconds(values) for name, values in times.items()}
    return [
        {"threads": threads, "dtype": str(dtype)[6:], "elements": size, "function": name}
        | measured
        | {"golu_takes": medians["golu"]["median_us"] / measured["median_us"]}
        for name, measured in medians.items()
    ]


def _training_call(function: Provider, x: Tensor, incoming: Tensor) -> Callable[[], None]:
    def call() -> None:
        function(x).backward(incoming)
        x.grad = None

    return call


# ------------------------------------------------------------------------------------------------------------ on a GPU


def activation_on_gpu(sizes: list[int] | None, compiled: bool, minutes: float) -> list[Row]:
    """Forward and backward apart, by device events, with the share of a device-to-device copy's bandwidth.

    What does not fit in the time is named in a last row.
    """
    stop = time.monotonic() + 60 * minutes
    rows = [*first_call_rows("cuda"), *small_call_rows("cuda", compiled)]
    left_out = []
    for size in sizes or _GPU_SIZES:
        for dtype in (torch.bfloat16, torch.float32, torch.float16):
            if time.monotonic() > stop:
                left_out.append(f"{size:,} {str(dtype)[6:]}")
            else:
                rows += _gpu_rows(dtype, size, compiled)
    if left_out:
        rows.append({"function": f"no time left for {', '.join(left_out)}"})
    return rows


_FIRST_CALL = """
import sys, time, torch
x = torch.randn(8, device=sys.argv[1], requires_grad=True)
torch.relu(x).sum().backward()
wait = torch.cuda.synchronize if x.is_cuda else lambda: None
wait()
start = time.perf_counter()
from golu_core import golu
golu(x).sum().backward()
wait()
print(1e6 * (time.perf_counter() - start))
"""


def first_call_rows(device: str) -> list[Row]:
    """A new process's first forward and backward, imports of GoLU and CuPy included, before and with a disk cache."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as cache:
        for state in ("first call, nothing cached", "first call, kernels cached on disk"):
            command = [sys.executable, "-c", _FIRST_CALL, device]
            variables = {**os.environ, "CUPY_CACHE_DIR": cache}
            done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
            rows.append({"function": "golu", "direction": state, "median_us": float(done.stdout)})
    return rows


def small_call_rows(device: str, compiled: bool) -> list[Row]:
    """Host time of forward plus backward on 8 elements: what a call costs when there is nothing to compute."""
    x = torch.randn(8, device=device, requires_grad=True)
    incoming = torch.randn(8, device=device)
    tasks = {
        name: _training_call(f, x, incoming[:4] if name.startswith("gated") else incoming)
        for name, f in providers(compiled).items()
    }
    times = interleaved(tasks, rounds=21, repeats=100)
    return [
        {"dtype": "float32", "elements": 8, "function": name, "direction": "forward + backward, host time"}
        | microseconds(values)
        for name, values in times.items()
    ]


def _gpu_rows(dtype: torch.dtype, size: int, compiled: bool) -> list[Row]:
    buffers = max(2, min(64, 200_000_000 // (size * 4)))  # rotate, so that small inputs do not sit in the cache
    inputs = [torch.randn(size, device="cuda").to(dtype).requires_grad_() for _ in range(buffers)]
    incoming = [torch.randn(size, device="cuda").to(dtype) for _ in range(2)]
    target = torch.empty_like(inputs[0])
    copy = _gpu_median(lambda n: target.data.copy_(inputs[n % buffers].data))
    copy_bandwidth = 2 * size * target.element_size() / copy
    rows = []
    torch.compiler.reset()  # compiled for this size: a kernel chosen for another can be many times slower
    for name, function in providers(compiled).items():
        if name.startswith("gated") and size % _GPU_ROW == 0:
            function = partial(_in_rows, function)
        with torch.no_grad():
            forward = _gpu_median(lambda n, f=function: f(inputs[n % buffers]))  # type: ignore[misc]
        outputs = [function(x) for x in inputs[:2]]
        gradients = incoming if outputs[0].shape == incoming[0].shape else [g[: outputs[0].numel()] for g in incoming]
        backward = _gpu_median(
            lambda n, o=outputs, g=gradients: torch.autograd.grad(o[n % 2], inputs[n % 2], g[n % 2], retain_graph=True)  # type: ignore[misc]
        )
        passes = (1.5, 2.5) if name.startswith("gated") else (2, 3)  # over memory, at least
        for direction, seconds, least in (("forward", forward, passes[0]), ("backward", backward, passes[1])):
            bandwidth = least * size * target.element_size() / seconds
            rows.append(
                {
                    "dtype": str(dtype)[6:],
                    "elements": size,
                    "function": name,
                    "direction": direction,
                    "median_us": 1e6 * seconds,
                    "share_of_copy_bandwidth": bandwidth / copy_bandwidth,
                }
            )
        del outputs
    return rows


def _in_rows(function: Provider, x: Tensor) -> Tensor:
    """A gated form on rows, whose halves lie apart, flat again."""
    return function(x.view(-1, _GPU_ROW)).flatten()


def _gpu_median(call: Callable[[int], object], rounds: int = 30) -> float:
    """Median seconds that the device works on one call, by its events, after a warm-up.

    The device sleeps while the host queues the call: else the host's time would be in it.
    """
    for n in range(5):
        call(n)
    pairs = []
    for n in range(rounds):
        torch.cuda._sleep(_SLEEP_CYCLES)
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call(n)
        stop.record()
        pairs.append((start, stop))
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(stop) for start, stop in pairs) / 1e3
