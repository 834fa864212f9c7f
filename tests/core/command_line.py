"""Runs a task's program as a person would: as a process."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from accelerate.state import AcceleratorState

import forks
from forks import environment
from golu_core.training.tasks.command_line import CommandLine


class Program:
    """A task's program, run as `python -m`, under torchrun if there are several processes.

    Its processes are forks of one that has imported everything (see `forks`), or fresh where a test asks for it.
    """

    def __init__(self, module: str) -> None:
        self.module = module

    def command(self, *arguments: str, processes: int = 1) -> list[str]:
        if processes == 1:
            return [sys.executable, "-m", self.module, *arguments]
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        return [sys.executable, *launcher, "-m", self.module, *arguments]

    def run(
        self, *arguments: str, cwd: Path, processes: int = 1, fresh: bool = False, **changes: str
    ) -> subprocess.CompletedProcess[str]:
        command = self.command(*arguments, processes=processes)
        return forks.run(command, cwd=cwd, env=environment(**changes), timeout=300, fresh=fresh)

    def start(
        self, *arguments: str, cwd: Path, processes: int = 1, fresh: bool = False, session: bool = False
    ) -> subprocess.Popen[str]:
        command = self.command(*arguments, processes=processes)
        streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        return forks.start(command, cwd=cwd, env=environment(), fresh=fresh, start_new_session=session, **streams)


def kill_all(process: subprocess.Popen[str]) -> None:
    """`kill -9` for a process and all its children: a launcher's workers would live on."""
    launcher = psutil.Process(process.pid)
    for victim in [*launcher.children(recursive=True), launcher]:
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()
    process.communicate()


def steps_logged(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    if not path.exists():
        return 0
    lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
    return int(json.loads(lines[-1])["step"]) if lines else 0


def wait_for_step(process: subprocess.Popen[str], folder: Path, step: int) -> bool:
    """Waits until a run has logged a step; False if it ended before."""
    deadline = time.monotonic() + 120
    while steps_logged(folder) < step:
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.005)
    return True


def metrics_without_time(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def survives_kills(
    program: Program, arguments: list[str], folder: Path, cwd: Path, processes: int, steps: list[int]
) -> None:
    """Starts a run again and again, kills it by `kill -9` after each of the steps, and lets it finish."""
    kills = 0
    for step in steps:
        process = program.start(*arguments, cwd=cwd, processes=processes)
        if wait_for_step(process, cwd / folder, max(step, steps_logged(cwd / folder))):
            kill_all(process)
            kills += 1
        process.wait()
    done = program.run(*arguments, cwd=cwd, processes=processes)
    assert done.returncode == 0, done.stderr
    assert kills >= len(steps) - 1
    assert "continuing" in done.stdout


def finishes_again(program: Program, arguments: list[str], folder: Path, whole: Path, cwd: Path) -> None:
    """Continues a copy of a finished run as if it had been killed after its last checkpoint, before its result."""
    shutil.copytree(whole, cwd / folder)
    for name in ("result.json", "model.safetensors", "curves.png"):
        (cwd / folder / name).unlink()
    done = program.run(*arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert "continuing" in done.stdout
    same_outcome(cwd / folder, whole)


def same_outcome(folder: Path, other: Path) -> None:
    """Asserts that two runs ended with the same weights, bit for bit, and the same metrics on the way."""
    assert (folder / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    assert metrics_without_time(folder) == metrics_without_time(other)


def runner_in_this_process(
    command_line: CommandLine[Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., SimpleNamespace]:
    """A function that runs a program inside this process, which saves seconds of imports.

    Whatever `train` refuses in any test, a dry run must refuse with the same message; only that another process is
    training in the folder does not follow from the request.
    """

    def run(*arguments: str, cwd: Path) -> SimpleNamespace:
        monkeypatch.chdir(cwd)
        done = run_once(*arguments)
        refused = arguments[:1] == ("train",) and done.returncode == 2
        if refused and "--dry-run" not in arguments and "another process is training" not in done.stderr:
            dry = run_once(*arguments, "--dry-run")
            assert (dry.returncode, dry.stderr) == (2, done.stderr), "a dry run says something else"
        return done

    def run_once(*arguments: str) -> SimpleNamespace:
        AcceleratorState._reset_state(reset_partial_state=True)  # or each run would have the precision of the first
        try:
            status: Any = command_line.main(arguments)
        except SystemExit as stop:  # tyro's, for a wrong flag
            status = stop.code
        printed = capfd.readouterr()
        return SimpleNamespace(returncode=status, stdout=printed.out, stderr=printed.err)

    return run
