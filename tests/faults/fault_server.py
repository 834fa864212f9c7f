"""A process that has imported every task and runs a program in a fork of itself for each request.

Importing takes seconds, a fork takes none, and each program starts as fresh as from a shell. Requests and answers are
lines of JSON on standard input and output. `file_faults.c` must have been loaded before (LD_PRELOAD).
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import sys
import tempfile
import traceback
from typing import Any

PACKAGES = {name: f"golu_{name}" for name in ("vision", "lm", "detect", "diffusion")} | {
    "translation": "golu_translate"
}
PROGRAMS = {name: f"{package}.cli:COMMAND_LINE.main" for name, package in PACKAGES.items()}
PROGRAMS["core"] = "golu_core.cli:main"
_IMPORTED_LATER = (
    "golu_core.training.loop.run",
    "golu_core.training.export.exporting",
    "golu_core.training.figures.drawing",
    "matplotlib.backends.backend_agg",
    "scipy.stats",
)
_CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h


def main() -> None:
    """Answers requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    libraries = ctypes.CDLL(None)
    modules = [program.partition(":")[0] for program in PROGRAMS.values()]
    for module in (*modules, *_IMPORTED_LATER, *(f"{package}.train" for package in PACKAGES.values())):
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # or the first collection of each fork would copy all pages
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        request = json.loads(line)
        for module in request["imports"]:
            importlib.import_module(module)
        child = os.fork()
        if child == 0:
            _run(request, libraries)
        _, status = os.waitpid(child, 0)
        answers.write(json.dumps(os.waitstatus_to_exitcode(status)) + "\n")
        answers.flush()


def _run(request: dict[str, Any], libraries: ctypes.CDLL) -> None:
    """Runs a program in this fork, and ends it."""
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), descriptor)
    os.chdir(request["cwd"])
    if request["like_anybody"] and os.geteuid() == 0:
        _give_up_the_rights_of_root(libraries)
    if request["temporary"]:
        os.environ["TMPDIR"] = tempfile.tempdir = request["temporary"]
    trace = os.open(request["trace"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC) if request["trace"] else -1
    if request["folder"]:
        libraries.file_faults_arm(request["folder"].encode(), ctypes.c_long(request["at"]), request["error"], trace)
    status = 1
    try:
        status = pkgutil.resolve_name(PROGRAMS[request["program"]])(request["arguments"])
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _give_up_the_rights_of_root(libraries: ctypes.CDLL) -> None:
    """Makes the permissions of files count for this process, as they do for anybody; it stays the user that it is."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if libraries.capset(header, nothing) != 0:
        raise OSError(ctypes.get_errno(), "capset")


if __name__ == "__main__":
    main()
