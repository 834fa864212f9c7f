"""A run that was killed and started again ends bit for bit like one that was not."""

from __future__ import annotations

import functools
import random
from pathlib import Path

import pytest

from command_line import finishes_again, metrics_without_time, same_outcome, survives_kills
from diffusion_program import DIFFUSION, FOLDER, TINY


def arguments(images: Path) -> list[str]:  # 3 steps an epoch
    return ["train", "ddpm-digits", "--data.images", str(images), *TINY, "--average.decay", "0.9", "--epochs", "3"]


@pytest.fixture(scope="module")
def uninterrupted(few_images, tmp_path_factory):
    @functools.cache
    def run(processes):
        cwd = tmp_path_factory.mktemp(f"whole{processes}")
        done = DIFFUSION.run(*arguments(few_images), cwd=cwd, processes=processes)
        assert done.returncode == 0, done.stderr
        return cwd / FOLDER

    return run


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2])  # one process is killed in golu-vision's
def test_killed_several_times_then_finished(processes, few_images, uninterrupted, tmp_path):
    steps = sorted(random.Random(processes).sample(range(1, 9), 3))
    survives_kills(DIFFUSION, arguments(few_images), FOLDER, tmp_path, processes, steps)
    whole = uninterrupted(processes)
    same_outcome(tmp_path / FOLDER, whole)
    for name in ("model_ema.safetensors", "samples/epoch-003.png"):
        assert (tmp_path / FOLDER / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.slow
def test_killed_behind_the_last_step(few_images, uninterrupted, tmp_path):
    finishes_again(DIFFUSION, arguments(few_images), FOLDER, uninterrupted(1), tmp_path)


@pytest.mark.slow
def test_one_and_two_processes_have_the_same_losses_and_samples(few_images, tmp_path):
    losses, grids = [], []
    for processes in (1, 2):
        cwd = tmp_path / str(processes)
        cwd.mkdir()
        plain = [*arguments(few_images), "--model.dropout", "0"]
        assert DIFFUSION.run(*plain, cwd=cwd, processes=processes).returncode == 0
        losses.append([line["loss"] for line in metrics_without_time(cwd / FOLDER)])
        grids.append(len((cwd / FOLDER / "samples" / "epoch-001.png").read_bytes()))
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert grids[0] == pytest.approx(grids[1], rel=0.01)
