"""Launch the CUDA kernels of `golu.cu` through CuPy, on torch's memory and torch's current stream.

check      once per process, compile one kernel; if that fails, warn once with the cause and the cure
choose     dense tensors of one layout use a kernel over elements, all others a kernel over rows
name       pick the kernel by direction and dtype, and its vector form if all addresses are multiples of 16 bytes
compile    compile each kernel on its first call; CuPy caches the binary on disk
launch     pass pointers, sizes and rounded constants to the kernel, on the stream that torch is using
"""

from __future__ import annotations

import math
import os
import warnings
from functools import cache, lru_cache, reduce
from importlib.resources import files
from operator import or_
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .layout import KERNEL_DTYPES as KERNEL_DTYPES
from .layout import rows
from .parameters import GompertzParameters

# CuPy adds -ftz=true to whatever it compiles: named here, so that the tests compile what users run. It takes subnormal
# numbers for 0, as golu_cpu.c does, and is what `ex2.approx.ftz` does for the half types anyway.
_COMPILE_OPTIONS = ("--std=c++17", "-ftz=true")


class TransferStyle(NamedTuple):
    """How the kernels for dense memory move it, which only a card can decide: `tools/benchmark.py` tries others.

    Attributes:
        vectors: The number of 16-byte vectors that a thread moves.
        streaming: whether past the cache.
    """

    vectors: int = 1
    streaming: bool = False


moves = TransferStyle()

_THREADS_PER_BLOCK = 256
"""A multiple of the warp size that every GPU supports, with several blocks per multiprocessor."""
_VECTOR_BYTES = 16
"""The widest load of one CUDA thread."""
_MOST_BLOCKS_OF_ROWS = 65_535  # CUDA's limit for the second dimension of a grid


def compile_options() -> tuple[str, ...]:
    """What NVRTC is told, `moves` included."""
    return (*_COMPILE_OPTIONS, f"-DGOLU_VECTORS={moves.vectors}", *(["-DGOLU_STREAMING"] if moves.streaming else []))


def kernel_source() -> str:
    """The CUDA C++ source of all kernels."""
    return files(__package__).joinpath("golu.cu").read_text(encoding="utf-8")


def kernel_name(direction: str, dtype: torch.dtype, aligned: bool, in_rows: bool = False) -> str:
    """The name of a kernel in the source; direction is `forward` or `backward`, or in rows a gated one, too."""
    return f"golu_{direction}_{KERNEL_DTYPES[dtype]}{'_rows' if in_rows else ''}_{'vector' if aligned else 'scalar'}"


def kernel_scalars(dtype: torch.dtype, parameters: GompertzParameters) -> tuple[float, ...]:
    """The kernels' constants alpha, rate, weight, slope, low, high, as `golu.cu` defines them, before rounding."""
    base2 = dtype in (torch.float16, torch.bfloat16)
    to_base = math.log2(math.e) if base2 else 1.0
    return (
        parameters.alpha,
        parameters.gamma * to_base,
        parameters.beta * to_base,
        parameters.gamma / to_base,
        parameters.low,
        parameters.high,
    )


@cache
def kernels_available() -> bool:
    """Whether CuPy can compile the kernels here; where it cannot, one warning says why, and the cure."""
    if torch.version.cuda is None:  # ROCm calls its devices cuda too
        return False
    reason = why_not(torch.version.cuda.partition(".")[0])
    if reason is not None:
        warnings.warn(
            f"GoLU runs without its CUDA kernel, slower and with more memory: {reason}", RuntimeWarning, stacklevel=2
        )
    return reason is None


def why_not(cuda_major: str) -> str | None:
    """Why the kernels cannot be used, with the cure; None where one of them compiles.

    Args:
        cuda_major: The major version of torch's CUDA, such as `13`.
    """
    install = f"pip install 'golu-core[cuda{cuda_major}]'"
    try:
        import cupy
    except ModuleNotFoundError as error:
        missing = error.name or "cupy"
        return f"CuPy is not installed: {install}" if missing == "cupy" else f"CuPy lacks {missing}: {install}"
    except Exception as error:  # a broken library shows up here in many forms
        return f"CuPy cannot be imported ({_short(error)}): {install}"
    try:
        _kernel(kernel_name("forward", torch.float32, aligned=True)).compile()
    except Exception as error:  # drivers, compilers and file systems have their own
        return f"{_cause(error, cupy, cuda_major)} ({_short(error)})"
    return None


def _cause(error: Exception, cupy: Any, cuda_major: str) -> str:
    """What a failed compilation most likely comes from, and its cure."""
    text = f"{type(error).__name__} {error}".lower()
    wheels = f"cupy-cuda{cuda_major}x"
    if _cuda_major_of(cupy) not in (None, cuda_major):
        return f"CuPy is for CUDA {_cuda_major_of(cupy)} and torch for CUDA {cuda_major}: install {wheels} instead"
    if isinstance(error, OSError) and "shared object" not in text:  # a library that is missing is an OSError, too
        folder = os.environ.get("CUPY_CACHE_DIR", "~/.cupy/kernel_cache")
        return f"CuPy's cache {folder} cannot be used: set CUPY_CACHE_DIR to a folder that can be written"
    if "architecture" in text or "no kernel image" in text or "ptx" in text:
        return f"the card is newer than CuPy's compiler: pip install --upgrade {wheels} nvidia-cuda-nvrtc"
    if "nvrtc" in text:
        return f"CuPy does not find NVRTC: pip install '{wheels}[ctk]'"
    return "CuPy could not compile the kernel"


def _cuda_major_of(cupy: Any) -> str | None:
    try:
        return str(cupy.cuda.runtime.runtimeGetVersion() // 1000)
    except Exception:  # without a driver not even this is known
        return None


def _short(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"


def golu_forward(x: Tensor, parameters: GompertzParameters) -> Tensor:
    """GoLU of a CUDA tensor of any shape and one of `KERNEL_DTYPES`; the result is laid out as torch's own would be."""
    y = torch.empty_like(x)
    if x.stride() == y.stride():
        _launch("forward", (x, y), parameters)
    else:
        _launch_rows("forward", parameters, (y,), x)
    return y


def golu_backward(gradient: Tensor, x: Tensor, parameters: GompertzParameters) -> Tensor:
    """The gradient with respect to x, given that of the output; both CUDA tensors of one shape and dtype."""
    result = torch.empty_like(x)
    if x.stride() == gradient.stride() == result.stride():
        _launch("backward", (x, gradient, result), parameters)
    else:
        _launch_rows("backward", parameters, (result,), x, gradient=gradient)
    return result


def gated_forward(x: Tensor, other: Tensor, parameters: GompertzParameters) -> Tensor:
    """GoLU(x) * other, both CUDA tensors of one shape and dtype."""
    result = torch.empty_like(x)
    _launch_rows("gated_forward", parameters, (result,), x, other=other)
    return result


def gated_backward(gradient: Tensor, x: Tensor, other: Tensor, parameters: GompertzParameters) -> tuple[Tensor, Tensor]:
    """The gradients with respect to x and to what it gates; all CUDA tensors of one shape and dtype."""
    result = torch.empty_like(x)
    other_result = torch.empty_like(result)
    _launch_rows("gated_backward", parameters, (result, other_result), x, other=other, gradient=gradient)
    return result, other_result


class _Stream:
    """What CuPy reads of a stream at a launch: its handle."""

    __slots__ = ("ptr",)

    def __init__(self, handle: int) -> None:
        self.ptr = handle


def _launch(direction: str, tensors: tuple[Tensor, ...], parameters: GompertzParameters) -> None:
    x = tensors[0]
    count = x.numel()
    if count == 0:
        return
    pointers = [tensor.data_ptr() for tensor in tensors]
    aligned = not reduce(or_, pointers) % _VECTOR_BYTES
    threads = _thread_count(count, x.element_size(), aligned)
    arguments = (*pointers, count, *_rounded_scalars(x.dtype, parameters))
    start(kernel_name(direction, x.dtype, aligned), x.get_device(), threads, arguments)


def _launch_rows(
    direction: str,
    parameters: GompertzParameters,
    results: tuple[Tensor, ...],
    x: Tensor,
    other: Tensor | None = None,
    gradient: Tensor | None = None,
) -> None:
    count, dtype = x.numel(), x.dtype
    if count == 0:
        return
    given = [tensor for tensor in (x, other, gradient) if tensor is not None]
    columns, placed = rows(results[0], *given)
    if columns == count and other is None:
        _launch(direction, (*(tensor for tensor, _ in placed), *results), parameters)
        return
    row_count = count // columns
    at = iter(placed)
    inputs = [next(at) if tensor is not None else None for tensor in (x, other, gradient)]
    pointers = [place[0].data_ptr() if place is not None else 0 for place in inputs]
    strides = [place[1] if place is not None else 0 for place in inputs]
    outputs = [result.data_ptr() for result in results] + [0] * (2 - len(results))
    pack = _VECTOR_BYTES // dtype.itemsize
    aligned = not any(address % _VECTOR_BYTES for address in (*pointers, *outputs)) and not any(
        length % pack for length in (columns, *strides)
    )
    grid, block = _grid_of_rows(row_count, columns // pack if aligned else columns)
    arguments = (*pointers, *outputs, row_count, columns, *strides, *_rounded_scalars(dtype, parameters))
    _start(kernel_name(direction, dtype, aligned, in_rows=True), x.get_device(), grid, block, arguments)


def _grid_of_rows(row_count: int, packs: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Blocks as wide as a row's packs, with several rows where those are few; a thread goes on to further rows."""
    width = min(_THREADS_PER_BLOCK, 1 << (packs - 1).bit_length())
    height = _THREADS_PER_BLOCK // width
    return (-(-packs // width), min(-(-row_count // height), _MOST_BLOCKS_OF_ROWS)), (width, height)


def start(name: str, device_index: int, threads: int, arguments: tuple[Any, ...]) -> None:
    """Starts a kernel on torch's current stream, with `threads` threads or a few more, in a grid of one dimension."""
    _start(name, device_index, (-(-threads // _THREADS_PER_BLOCK),), (_THREADS_PER_BLOCK,), arguments)


def _start(
    name: str, device_index: int, grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...]
) -> None:
    kernel = _kernel(name)
    stream = _Stream(_current_stream(device_index))
    if device_index == torch.cuda.current_device():
        kernel(grid, block, arguments, stream=stream)
    else:
        with torch.cuda.device(device_index):
            kernel(grid, block, arguments, stream=stream)


def _current_stream(device_index: int) -> int:
    """The handle of torch's current stream; by torch's own short cut where it is there, since each call pays for it."""
    shortcut = getattr(torch._C, "_cuda_getCurrentRawStream", None)
    if shortcut is not None:
        return int(shortcut(device_index))
    return torch.cuda.current_stream(device_index).cuda_stream


def _thread_count(count: int, element_size: int, aligned: bool) -> int:
    """One thread for the vectors that it moves, and one for each element that is left."""
    if not aligned:
        return count
    threads, rest = divmod(count, _VECTOR_BYTES // element_size * moves.vectors)
    return threads + rest


@cache
def _kernel(name: str) -> Any:
    import cupy

    return cupy.RawKernel(kernel_source(), name, compile_options())


@lru_cache(maxsize=256)
def _rounded_scalars(dtype: torch.dtype, parameters: GompertzParameters) -> tuple[Any, ...]:
    import numpy

    rounded = numpy.float64 if dtype == torch.float64 else numpy.float32
    return tuple(rounded(value) for value in kernel_scalars(dtype, parameters))
