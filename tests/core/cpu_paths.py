"""What can compute GoLU on this CPU: compiled kernels of each instruction set, and torch's operations."""

from __future__ import annotations

import platform

from golu_core.activation.compute import native
from golu_core.activation.compute.layout import KERNEL_DTYPES

LEVELS = ("baseline", "avx2", "avx512")
OPERATIONS = "torch's operations"


def usable_levels() -> list[str]:
    """Instruction sets of this processor whose library is there."""
    best = native.instruction_set()
    on_x86 = platform.machine().lower() in ("x86_64", "amd64")
    levels = LEVELS[: LEVELS.index(best) + 1] if on_x86 else ("baseline",)
    return [level for level in levels if native.library_path(level).exists()]


PATHS = [*usable_levels(), OPERATIONS]


def kernels_of(path: str) -> native.Kernels | None:
    """The kernels of one of `PATHS`."""
    if path == OPERATIONS:
        return None
    return native.Kernels(native.load_library(native.library_path(path)), native._torch_parallel_for())


DTYPES = tuple(KERNEL_DTYPES)
