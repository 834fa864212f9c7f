"""A run that was killed and started again ends bit for bit like one that was not."""

from __future__ import annotations

import functools
import random
from pathlib import Path

import pytest

from command_line import same_outcome, survives_kills
from detect_program import DETECT, FAST

FOLDER = Path("runs/detect/fasterrcnn-digits/golu/seed0")


def arguments(root: Path) -> list[str]:  # 3 steps an epoch, in groups of one aspect ratio, mirrored
    flags = ["--data-dir", str(root), "--augment.flip", "--group-size", "2"]
    return ["train", "fasterrcnn-digits", *flags, *FAST]


@pytest.fixture(scope="module")
def uninterrupted(few_scenes, tmp_path_factory):
    @functools.cache
    def run(processes):
        cwd = tmp_path_factory.mktemp(f"whole{processes}")
        done = DETECT.run(*arguments(few_scenes), cwd=cwd, processes=processes)
        assert done.returncode == 0, done.stderr
        return cwd / FOLDER

    return run


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2])  # one process is killed in golu-vision's
def test_killed_several_times_then_finished(processes, few_scenes, uninterrupted, tmp_path):
    steps = sorted(random.Random(processes).sample(range(1, 6), 2))
    survives_kills(DETECT, arguments(few_scenes), FOLDER, tmp_path, processes, steps)
    same_outcome(tmp_path / FOLDER, uninterrupted(processes))


@pytest.mark.slow
def test_loader_processes_change_nothing(few_scenes, uninterrupted, tmp_path):
    done = DETECT.run(*arguments(few_scenes), "--num-workers", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    same_outcome(tmp_path / FOLDER, uninterrupted(1))
