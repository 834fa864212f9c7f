"""Programs of all tasks on a disk that fails when a test says so."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from command_line import environment, metrics_without_time
from detect_program import FAST as DETECT_FAST
from diffusion_program import TINY as DIFFUSION_TINY
from golu_core.training.tasks.task import installed_tasks
from lm_program import TINY as LM_TINY
from translation_program import NAME as PAIRS
from translation_program import TINY as TRANSLATION_TINY

ALL = os.environ.get("GOLU_ALL_FAULTS") == "1"
"""Whether every fault is tried at every place, which takes hours, and not a sample of both."""
KILL = -1
NO_SPACE = errno.ENOSPC
READ_ERROR = errno.EIO
_HERE = Path(__file__).resolve().parent
_COMMON = ["--num-workers", "0"]
LM_FLAGS = [*LM_TINY, "--steps", "8", "--checkpoint-every", "3"]
# every task, on the data that it writes itself, and short enough for hundreds of runs
TRAINED: dict[str, list[str]] = {
    "vision": ["mlp-digits", "--max-steps", "8", "--checkpoint-every", "3", "--log-every", "1"],
    "lm": ["babygpt-pydocs", *LM_FLAGS],
    "detect": ["deeplabv3-digits", *DETECT_FAST, "--max-steps", "4"],
    "diffusion": ["ddpm-digits", *DIFFUSION_TINY, "--max-steps", "6", "--checkpoint-every", "3"],
    "translation": ["transformer-numbers", *TRANSLATION_TINY, "--data.name", PAIRS, "--checkpoint-every", "3"],
}
SHARED = list(TRAINED) if ALL else ["lm"]
"""The tasks in which what golu-core does for all of them is tried; golu-lm's run is the quickest."""
PROGRAMS = {task: installed_tasks()[task].program for task in TRAINED}
TRAIN = {task: ["train", *flags, *_COMMON] for task, flags in TRAINED.items()}


def run_folder(task: str) -> Path:
    """Of a task's run, relative to where it was started."""
    return Path("runs") / task / TRAINED[task][0] / "golu" / "seed0"


@dataclass(frozen=True)
class Ended:
    """How a program ended.

    Attributes:
        returncode: its status; -9 after a kill.
        stdout, stderr: what it printed.
        operations: each change below the watched folder, as `write /path`.
    """

    returncode: int
    stdout: str
    stderr: str
    operations: tuple[str, ...] = ()

    @property
    def message(self) -> str:
        """The one line of a refusal or failure; asserts that there is no traceback and one line alone."""
        assert "Traceback" not in self.stderr, self.stderr
        lines = [line for line in self.stderr.splitlines() if line.startswith("golu-")]
        assert len(lines) == 1, self.stderr
        return lines[0]


class FaultyPrograms:
    """Runs programs under `file_faults.c`. Needs Linux and a C compiler."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        library = scratch / "file_faults.so"
        compiler = shutil.which("cc") or shutil.which("gcc")
        assert compiler is not None
        command = [compiler, "-O1", "-Wall", "-shared", "-fPIC", "-o", library, _HERE / "file_faults.c", "-ldl"]
        subprocess.run(command, check=True)
        self._server = subprocess.Popen(
            [sys.executable, str(_HERE / "fault_server.py")],
            env=environment(LD_PRELOAD=str(library), MPLBACKEND="Agg"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._answers.readline() == "ready\n"

    @property
    def _answers(self) -> IO[str]:
        assert self._server.stdout is not None
        return self._server.stdout

    def run(
        self,
        program: str,
        *arguments: str,
        cwd: Path,
        folder: Path | None = None,
        at: int = 0,
        error: int = KILL,
        like_anybody: bool = False,
        temporary: Path | None = None,
        imports: Sequence[str] = (),
    ) -> Ended:
        """Runs a program to its end.

        Args:
            program: a task, `vision`, or `core`.
            arguments: of its command line.
            cwd: where it starts.
            folder: changes below it count.
            at: the change, from 1, at which the fault strikes; 0 for none.
            error: KILL, or the errno of each change that needs space from there on.
            like_anybody: permissions of files count, even if root runs this.
            temporary: Its folder for temporary files.
            imports: Modules that are imported before the fork.
        """
        out, err, trace = (self._scratch / name for name in ("stdout", "stderr", "trace"))
        request = {
            "program": program,
            "arguments": arguments,
            "cwd": str(cwd),
            "folder": str(folder) if folder else "",
            "at": at,
            "error": error,
            "like_anybody": like_anybody,
            "temporary": str(temporary) if temporary else "",
            "imports": list(imports),
            "stdout": str(out),
            "stderr": str(err),
            "trace": str(trace) if folder else "",
        }
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        status = json.loads(self._answers.readline())
        operations = tuple(trace.read_text().splitlines()) if folder else ()
        return Ended(status, out.read_text(), err.read_text(), operations)

    def close(self) -> None:
        """Ends the process that runs the programs."""
        self._server.communicate()


def files(folder: Path) -> list[str]:
    """What lies below a folder, hidden files and empty folders included."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def same_as(folder: Path, whole: Path, task: str, may_stay: str = "") -> None:
    """Asserts that a run ended as an undisturbed one: the same files, weights, metrics and data, and nothing besides.

    Args:
        folder: where it was started.
        whole: where the undisturbed one was.
        task: of both.
        may_stay: a folder that may be there besides.
    """
    odd = set(files(folder)) ^ set(files(whole))
    if may_stay:
        odd = {name for name in odd if not f"{name}/".startswith(f"{may_stay}/")}
    assert not odd, f"left over or missing: {sorted(odd)}"
    ours, theirs = folder / run_folder(task), whole / run_folder(task)
    assert (ours / "model.safetensors").read_bytes() == (theirs / "model.safetensors").read_bytes(), "other weights"
    assert metrics_without_time(ours) == metrics_without_time(theirs), "other metrics"
    for name in ("primary_metric", "metrics", "best", "data", "steps", "config_sha256"):
        assert _result(ours)[name] == _result(theirs)[name], name
    for path in (whole / "data").rglob("*"):
        if path.is_file():
            assert (folder / path.relative_to(whole)).read_bytes() == path.read_bytes(), path


def _result(folder: Path) -> dict[str, object]:
    values = json.loads((folder / "result.json").read_text())
    assert isinstance(values, dict)
    return values


def kinds_of(operations: Sequence[str], folder: Path) -> dict[str, list[int]]:
    """The numbers, from 1, of the changes of each kind: the same call on paths that differ in their digits alone."""
    kinds: dict[str, list[int]] = {}
    for number, line in enumerate(operations, start=1):
        name, _, path = line.partition(" ")
        inside = os.path.relpath(path, folder)
        pattern = re.sub(r"\d+", "0", re.sub(r"\.tmp\w{6}$", ".tmp", inside))
        kinds.setdefault(f"{name} {pattern}", []).append(number)
    return kinds
