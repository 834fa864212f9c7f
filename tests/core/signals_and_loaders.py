"""What every task must do when signals come to the whole process group, and when loader processes die."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil

from command_line import Program, kill_all, same_outcome, wait_for_step


def stops_and_continues(
    program: Program, arguments: list[str], folder: Path, whole: Path, cwd: Path, number: int, processes: int
) -> None:
    """A signal to the whole group saves, says so, leaves no process, and the same command ends as if nothing was."""
    process = program.start(*arguments, cwd=cwd, processes=processes, session=True)
    assert wait_for_step(process, cwd / folder, 2)
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=90)
    if processes == 1:  # a launcher has an exit status of its own
        assert process.returncode == 128 + number, errors
        assert "Traceback" not in errors, errors
    assert "the same command continues the run" in errors, errors
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive, alive
    assert not (cwd / folder / "result.json").exists()
    assert list((cwd / folder / "checkpoints").glob("step-*"))
    done = program.run(*arguments, cwd=cwd, processes=processes)
    assert done.returncode == 0, done.stderr
    assert "continuing" in done.stdout
    same_outcome(cwd / folder, whole)


def a_killed_loader_is_one_message(program: Program, arguments: list[str], folder: Path, cwd: Path) -> None:
    """`kill -9` of a loader process, as the system does when memory is short."""
    process = program.start(*arguments, cwd=cwd, session=True)
    assert wait_for_step(process, cwd / folder, 1)
    deadline = time.monotonic() + 20
    while not (loaders := psutil.Process(process.pid).children()):
        assert time.monotonic() < deadline
    for loader in loaders:
        loader.kill()
    _, errors = process.communicate(timeout=90)
    assert process.returncode == 1, errors
    assert "a loader process was killed" in errors and "Traceback" not in errors, errors
    assert len(errors.strip().splitlines()) < 12, errors


def loaders_end_with_their_parent(program: Program, arguments: list[str], folder: Path, cwd: Path) -> None:
    process = program.start(*arguments, cwd=cwd, session=True)
    assert wait_for_step(process, cwd / folder, 1)
    loaders = psutil.Process(process.pid).children()
    assert loaders, "no loader process"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    _, alive = psutil.wait_procs(loaders, timeout=3)
    if alive:
        kill_all(process)
    assert not alive, alive
