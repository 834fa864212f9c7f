"""The CUDA source on the CPU: compiled as C++, and started by the launcher's own code over emulated blocks."""

from __future__ import annotations

import ctypes
import math
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from golu_core.activation.compute import kernel
from golu_core.activation.compute.kernel import KERNEL_DTYPES, kernel_name, kernel_source

COMPUTED = {torch.float64: "double", torch.float32: "float", torch.float16: "float", torch.bfloat16: "float"}
STORED = {
    torch.float64: "double",
    torch.float32: "float",
    torch.float16: "unsigned short",
    torch.bfloat16: "unsigned short",
}
THREADS = 256
STREAM = 1234
OPERATIONS = ("forward", "backward", "gated_forward", "gated_backward")
ROW_KERNELS = [
    (operation, dtype, aligned) for operation in OPERATIONS for dtype in KERNEL_DTYPES for aligned in (True, False)
]
LEARNED_KERNELS = {
    f"golu_learned_{direction}_{name}": dtype
    for direction in ("forward", "backward")
    for dtype, name in KERNEL_DTYPES.items()
}


def emulation(folder: Path, *options: str) -> ctypes.CDLL:
    """The kernels, compiled as C++ with the options of `kernel.moves`."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    source = folder / "golu_host.cpp"
    shim = (Path(__file__).parent / "host_shim.h").read_text()
    entries = [
        f"EMULATE({KERNEL_DTYPES[dtype]}_{kind}, {STORED[dtype].replace(' ', '_')}, {COMPUTED[dtype]})"
        for dtype in KERNEL_DTYPES
        for kind in ("vector", "scalar")
    ]
    entries += [
        f"EMULATE_ROWS({kernel_name(operation, dtype, aligned, in_rows=True).removeprefix('golu_')}, "
        f"{STORED[dtype].replace(' ', '_')}, {COMPUTED[dtype]})"
        for operation, dtype, aligned in ROW_KERNELS
    ]
    entries += [
        f"EMULATE_LEARNED({name.removeprefix('golu_')}, {STORED[dtype].replace(' ', '_')}, {COMPUTED[dtype]})"
        for name, dtype in LEARNED_KERNELS.items()
    ]
    source.write_text(
        "\n".join([shim, "typedef unsigned short unsigned_short;", kernel_source(), *entries]), encoding="utf-8"
    )
    library = folder / "golu_host.so"
    flags = ["-O1", "-std=c++17", "-shared", "-fPIC", "-Wno-unknown-pragmas", "-fno-strict-aliasing", *options]
    flags += ["-fsanitize=undefined", "-fno-sanitize-recover"]
    built = subprocess.run(
        [compiler, *flags, str(source), "-o", str(library)], capture_output=True, text=True, check=False
    )
    if "_Float16" in built.stderr:
        pytest.skip("needs a C++ compiler with _Float16")
    assert built.returncode == 0, built.stderr
    return ctypes.CDLL(str(library))


def launch_on(library: ctypes.CDLL, patch: pytest.MonkeyPatch) -> list[str]:
    """Replaces CuPy's RawKernel by the emulated kernels, and CUDA's stream by a number.

    Returns:
        The names of the kernels that are started from now on.
    """
    launched: list[str] = []

    def raw_kernel(name: str) -> Callable[..., None]:
        def launch(grid: Any, block: Any, arguments: Any, *, stream: Any) -> None:
            assert stream.ptr == STREAM and math.prod(block) == THREADS
            run = getattr(library, f"run_{name}")
            if "_learned_" in name:
                pointers = [ctypes.c_void_p(a) for a in arguments[:7]]
                run(*grid, *block, *pointers, (ctypes.c_longlong * 11)(*arguments[7:]))
            elif "_rows_" in name:
                pointers = [ctypes.c_void_p(a) for a in arguments[:5]]
                numbers = (ctypes.c_longlong * 5)(*arguments[5:10])
                run(*grid, *block, *pointers, numbers, (ctypes.c_double * 6)(*(float(a) for a in arguments[10:])))
            else:
                pointers = [ctypes.c_void_p(a) for a in arguments[:-7]]
                computed = numpy.float64 if "float64" in name else numpy.float32
                assert all(type(a) is computed for a in arguments[-6:]), "the kernel takes its own scalar type"
                constants = (ctypes.c_double * 6)(*(float(a) for a in arguments[-6:]))
                run(grid[0], block[0], *pointers, ctypes.c_longlong(arguments[-7]), constants)
            launched.append(name)

        return launch

    patch.setattr(kernel, "_kernel", raw_kernel)
    patch.setattr(torch.cuda, "current_device", lambda: -1)  # the index of a CPU tensor
    patch.setattr(kernel, "_current_stream", lambda index: STREAM)
    return launched
