"""Programs on a failing disk, the data that they train on, and how they end when nothing fails."""

from __future__ import annotations

import functools
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from detect_program import copy_few
from faults import KILL, TRAIN, Ended, FaultyPrograms, run_folder
from golu_core.training.data.digits import write_digits
from golu_detect.samples import write_digit_scenes
from translation_program import prepared as prepared_pairs


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyPrograms]:
    """All tasks' programs, each run in a fork."""
    if sys.platform != "linux" or not (shutil.which("cc") or shutil.which("gcc")):
        pytest.skip("needs Linux and a C compiler")
    running = FaultyPrograms(tmp_path_factory.mktemp("programs"))
    yield running
    running.close()


@pytest.fixture(scope="session")
def data(programs: FaultyPrograms, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of all tasks, with few scenes, and readable by everybody."""
    top = tmp_path_factory.mktemp("data")
    write_digits(top / "digits")
    prepared_pairs(top)
    prepared = programs.run("lm", *TRAIN["lm"], "--data-dir", str(top), cwd=tmp_path_factory.mktemp("prepared"))
    assert prepared.returncode == 0, prepared.stderr
    copy_few(write_digit_scenes(tmp_path_factory.mktemp("scenes") / "digit-scenes"), top)
    for folder in (top, *top.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    return top


@pytest.fixture(scope="session")
def whole(
    programs: FaultyPrograms, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Path, Ended]]:
    """A function that gives a task's undisturbed run: where it was started, and how it ended."""

    @functools.cache
    def undisturbed(task: str) -> tuple[Path, Ended]:
        cwd = tmp_path_factory.mktemp(f"whole-{task}")
        ended = programs.run(task, *TRAIN[task], "--data-dir", str(data), cwd=cwd, folder=cwd)
        assert ended.returncode == 0, ended.stderr
        return cwd, ended

    return undisturbed


@pytest.fixture(scope="session")
def whole_with_data(
    programs: FaultyPrograms, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Path, Ended]]:
    """The same for a run that writes its sample data first; the changes are those of the data folder."""

    @functools.cache
    def undisturbed(task: str) -> tuple[Path, Ended]:
        cwd = tmp_path_factory.mktemp(f"data-{task}")
        ended = programs.run(task, *TRAIN[task], cwd=cwd, folder=cwd / "data")
        assert ended.returncode == 0, ended.stderr
        return cwd, ended

    return undisturbed


@pytest.fixture(scope="session")
def stopped(
    programs: FaultyPrograms,
    data: Path,
    whole: Callable[[str], tuple[Path, Ended]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Path]:
    """A function that gives where a task's run was killed, before its last checkpoint had its name."""

    @functools.cache
    def killed(task: str) -> Path:
        _, ended = whole(task)
        renames = [number for number, line in enumerate(ended.operations, 1) if line.startswith("rename ")]
        published = [n for n in renames if Path(ended.operations[n - 1]).name.startswith("step-")]
        cwd = tmp_path_factory.mktemp(f"stopped-{task}")
        run = programs.run(
            task, *TRAIN[task], "--data-dir", str(data), cwd=cwd, folder=cwd, at=published[-1], error=KILL
        )
        assert run.returncode == -9
        (cwd / run_folder(task)).with_name(".seed0.lock").unlink()
        return cwd

    return killed
