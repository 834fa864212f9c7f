"""Calls GoLU's compiled CPU kernels, `golu_cpu.c`, on torch's memory and in torch's own pool of threads.

A wheel for a platform holds one library for each instruction set; torch says which one this processor takes. They link
against nothing: the address of a kernel goes to torch's C function for parallel loops.
"""

from __future__ import annotations

import ctypes
import hashlib
import struct
import sys
import warnings
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .layout import KERNEL_DTYPES, rows
from .parameters import GompertzParameters

FOLDER = Path(__file__).parent
SOURCE = FOLDER / "golu_cpu.c"
DIRECTIONS = (
    *("forward", "backward", "gated_forward", "gated_backward"),
    *("learned_forward", "learned_backward", "learned_forward_last", "learned_backward_last"),
)
AT_ONCE = 1 << 14
"""Elements below which a second thread costs more than it saves."""
JOB = struct.Struct("5P4q5d")
"""`Job` of golu_cpu.c, as bytes: five pointers, row length and strides, parameters and range."""
_TORCH_LIBRARIES = {"linux": "libtorch_cpu.so", "darwin": "libtorch_cpu.dylib"}


class NotAvailable(Exception):
    """The kernels cannot be used; the message says why."""


class Kernels(NamedTuple):
    """The address of a kernel by direction and dtype, and torch's parallel loop."""

    addresses: dict[str, dict[torch.dtype, int]]
    parallel_for: Any


def instruction_set() -> str:
    """The library for this processor: torch's choice, which its ATEN_CPU_CAPABILITY can lower."""
    capability = torch.backends.cpu.get_cpu_capability().upper()
    return next((name for name in ("avx512", "avx2") if capability.startswith(name.upper())), "baseline")


def library_path(name: str) -> Path:
    """Where the library of an instruction set is, if there is one."""
    return FOLDER / f"_golu_cpu_{name}.so"


def source_fingerprint() -> str:
    """Of the text of golu_cpu.c; a library knows that of the text it was built from."""
    return hashlib.sha256(SOURCE.read_bytes()).hexdigest()


def load_library(path: Path) -> dict[str, dict[torch.dtype, int]]:
    """The kernels' addresses by direction and dtype.

    Raises:
        NotAvailable: there is no such library, it cannot be loaded, or it was built from another source.
    """
    if not path.exists():
        raise NotAvailable(
            "this installation has no compiled kernels: install golu-core from a wheel for this platform, "
            "or a C compiler and then golu-core again"
        )
    try:
        library = ctypes.CDLL(str(path))
        built_from = ctypes.string_at(ctypes.addressof(ctypes.c_char.in_dll(library, "golu_source"))).decode()
        addresses = {
            direction: {
                dtype: ctypes.cast(getattr(library, f"golu_{direction}_{name}"), ctypes.c_void_p).value or 0
                for dtype, name in KERNEL_DTYPES.items()
            }
            for direction in DIRECTIONS
        }
    except (OSError, AttributeError, ValueError) as error:
        raise NotAvailable(f"{path.name} cannot be loaded: {error}") from None
    if built_from != source_fingerprint():
        raise NotAvailable(f"{path.name} was built from another golu_cpu.c: install golu-core again")
    return addresses


def _torch_parallel_for() -> Any:
    try:
        path = Path(torch.__file__).parent / "lib" / _TORCH_LIBRARIES[sys.platform]
        function = ctypes.CDLL(str(path)).torch_parallel_for
    except (OSError, AttributeError) as error:
        raise NotAvailable(f"torch's thread pool cannot be reached: {error}") from None
    function.argtypes = (ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_char_p)
    function.restype = ctypes.c_int32
    return function


@cache
def _outcome() -> Kernels | NotAvailable:
    """The kernels of this processor, or why they cannot be used; looked for once."""
    try:
        if sys.platform not in _TORCH_LIBRARIES:
            raise NotAvailable(f"there are no compiled kernels for {sys.platform}")
        return Kernels(load_library(library_path(instruction_set())), _torch_parallel_for())
    except NotAvailable as reason:
        return reason


@cache
def kernels() -> Kernels | None:
    """Return the kernels of this processor; None if they cannot be used, with one warning if they should be there."""
    outcome = _outcome()
    if isinstance(outcome, Kernels):
        return outcome
    if sys.platform in _TORCH_LIBRARIES:
        warnings.warn(
            f"GoLU runs without its CPU kernels, slower and with more memory: {outcome}", RuntimeWarning, stacklevel=3
        )
    return None


def why_not() -> str | None:
    """Why the kernels cannot be used here, None where they can."""
    outcome = _outcome()
    return str(outcome) if isinstance(outcome, NotAvailable) else None


def description() -> str:
    """What computes GoLU on this CPU, in words."""
    return "torch operations" if why_not() else f"compiled kernels, {instruction_set()}"


def golu_forward(x: Tensor, parameters: GompertzParameters) -> Tensor:
    """GoLU of a CPU tensor of any shape and one of `KERNEL_DTYPES`; the result is laid out as torch's own are."""
    result = torch.empty_like(x)
    columns, stride = x.numel(), 0
    if not x.is_contiguous():
        columns, ((x, stride),) = rows(result, x)
    pointers = x.data_ptr(), 0, 0, result.data_ptr(), 0
    job = JOB.pack(*pointers, columns, stride, 0, 0, *_constants(x, parameters))
    start("forward", x.dtype, result.numel(), AT_ONCE, job)
    return result


def golu_backward(gradient: Tensor, x: Tensor, parameters: GompertzParameters) -> Tensor:
    """The gradient with respect to x, given that of the output; both CPU tensors of one shape and dtype."""
    result = torch.empty_like(x)
    columns, x_stride, gradient_stride = x.numel(), 0, 0
    if not (x.is_contiguous() and gradient.is_contiguous()):
        columns, ((x, x_stride), (gradient, gradient_stride)) = rows(result, x, gradient)
    pointers = x.data_ptr(), 0, gradient.data_ptr(), result.data_ptr(), 0
    job = JOB.pack(*pointers, columns, x_stride, 0, gradient_stride, *_constants(x, parameters))
    start("backward", x.dtype, result.numel(), AT_ONCE, job)
    return result


def gated_forward(x: Tensor, other: Tensor, parameters: GompertzParameters) -> Tensor:
    """GoLU(x) * other, both CPU tensors of one shape and dtype."""
    result = torch.empty_like(x)
    columns, ((x, x_stride), (other, other_stride)) = rows(result, x, other)
    pointers = x.data_ptr(), other.data_ptr(), 0, result.data_ptr(), 0
    job = JOB.pack(*pointers, columns, x_stride, other_stride, 0, *_constants(x, parameters))
    start("gated_forward", x.dtype, result.numel(), AT_ONCE, job)
    return result


def gated_backward(gradient: Tensor, x: Tensor, other: Tensor, parameters: GompertzParameters) -> tuple[Tensor, Tensor]:
    """The gradients with respect to x and to what it gates; all CPU tensors of one shape and dtype."""
    result = torch.empty_like(x)
    other_result = torch.empty_like(result)
    columns, ((x, x_stride), (other, other_stride), (gradient, gradient_stride)) = rows(result, x, other, gradient)
    pointers = x.data_ptr(), other.data_ptr(), gradient.data_ptr(), result.data_ptr(), other_result.data_ptr()
    strides = x_stride, other_stride, gradient_stride
    job = JOB.pack(*pointers, columns, *strides, *_constants(x, parameters))
    start("gated_backward", x.dtype, result.numel(), AT_ONCE, job)
    return result, other_result


def _constants(x: Tensor, p: GompertzParameters) -> tuple[float, float, float, float, float]:
    low = p.zero_below_double if x.dtype == torch.float64 else p.zero_below_single
    return p.alpha, p.beta, p.gamma, low, p.high


def start(direction: str, dtype: torch.dtype, units: int, at_once: int, job: bytes) -> None:
    """Runs a kernel in torch's pool of threads.

    Args:
        direction, dtype: which kernel.
        units: elements, or what else the kernel counts; each is computed by one thread.
        at_once: units below which a second thread costs more than it saves.
        job: The struct of golu_cpu.c as bytes, which takes a third of the time of a ctypes structure.
    """
    found = kernels()
    assert found is not None
    address = found.addresses[direction][dtype]
    if found.parallel_for(0, units, at_once, address, job) != 0:
        raise RuntimeError(f"torch's parallel loop failed in GoLU, {direction}")
