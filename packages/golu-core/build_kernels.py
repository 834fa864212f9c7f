"""Builds GoLU's CPU kernels into the wheel where there is a C compiler; without one the wheel is pure Python.

`CC` names the compiler. `GOLU_CPU_KERNELS=off` leaves the kernels out, and `GOLU_CPU_KERNELS=required` makes it an
error if they cannot be built.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = Path("golu_core", "activation", "compute")
# what torch asks of a processor before it calls it AVX2 or AVX512
INSTRUCTION_SETS = {
    "baseline": (),
    "avx2": ("-mavx2", "-mfma", "-mf16c"),
    "avx512": ("-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mavx2", "-mfma", "-mf16c"),
}
# contractions make the fused multiply-adds; nothing else that could change a number, such as -ffast-math
FLAGS = (
    "-std=c11", "-O3", "-shared", "-fPIC", "-fvisibility=hidden",
    "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math",
)  # fmt: skip


class KernelBuild(BuildHookInterface[Any]):
    """Compiles `golu_cpu.c` once for each instruction set of this processor's family."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Adds the libraries to a wheel, or puts them beside the source of an editable installation."""
        wanted = os.environ.get("GOLU_CPU_KERNELS", "auto")
        compiler = None if wanted == "off" else _compiler()
        root = Path(self.root, "src") / PACKAGE
        self._scratch = None if version == "editable" else tempfile.TemporaryDirectory()
        folder = root if self._scratch is None else Path(self._scratch.name)
        try:
            built = [] if compiler is None else _build(compiler, root / "golu_cpu.c", folder)
        except (subprocess.CalledProcessError, OSError) as error:
            reason = str(getattr(error, "stderr", None) or error).strip()
            self.app.display_warning(f"GoLU's CPU kernels cannot be built: {reason[:300]}")
            built = []
        if wanted == "required" and not built:
            raise RuntimeError("GOLU_CPU_KERNELS=required, and there is no C compiler that can build the kernels")
        if built and version != "editable":
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{_platform_tag()}"
            build_data["force_include"].update({str(path): str(PACKAGE / path.name) for path in built})

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Removes the folder of the libraries once they are in the wheel."""
        if self._scratch is not None:
            self._scratch.cleanup()


def _compiler() -> str | None:
    if os.name != "posix":
        return None
    named = os.environ.get("CC")
    return next(filter(None, map(shutil.which, [named] if named else ["cc", "gcc", "clang"])), None)


def _build(compiler: str, source: Path, folder: Path) -> list[Path]:
    on_x86 = platform.machine().lower() in ("x86_64", "amd64")
    fingerprint = hashlib.sha256(source.read_bytes()).hexdigest()
    built = []
    for name, flags in INSTRUCTION_SETS.items():
        if name != "baseline" and not on_x86:
            continue
        library = folder / f"_golu_cpu_{name}.so"
        scratch = library.with_suffix(".building")  # a library that a program has open is replaced, not written to
        command = [compiler, *FLAGS, *flags, f'-DGOLU_SOURCE="{fingerprint}"', str(source), "-o", str(scratch)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        os.replace(scratch, library)
        built.append(library)
    return built


def _platform_tag() -> str:
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")
