"""A translator that was killed and started again ends bit for bit like one that was not, on any number of processes."""

from __future__ import annotations

import functools
import json
import random

import pytest

from command_line import finishes_again, metrics_without_time, same_outcome, survives_kills
from translation_program import FOLDER, TINY, TRANSLATE, prepared

ARGUMENTS = ["train", "transformer-numbers", *TINY, "--checkpoint-every", "3"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    @functools.cache
    def run(processes):
        cwd = tmp_path_factory.mktemp(f"whole{processes}")
        prepared(cwd / "data")
        done = TRANSLATE.run(*ARGUMENTS, cwd=cwd, processes=processes)
        assert done.returncode == 0, done.stderr
        return cwd / FOLDER

    return run


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2])  # one process is killed in golu-vision's
def test_killed_several_times_then_finished(processes, uninterrupted, tmp_path):
    """The steps of the average are from 4 to 12: some kills are before it begins, some in the middle of it."""
    prepared(tmp_path / "data")
    steps = sorted(random.Random(processes).sample(range(1, 11), 3))
    survives_kills(TRANSLATE, ARGUMENTS, FOLDER, tmp_path, processes, steps)
    same_outcome(tmp_path / FOLDER, uninterrupted(processes))
    average, expected = (place / "model_ema.safetensors" for place in (tmp_path / FOLDER, uninterrupted(processes)))
    assert average.read_bytes() == expected.read_bytes()


@pytest.mark.slow
def test_killed_behind_the_last_step(uninterrupted, tmp_path):
    prepared(tmp_path / "data")
    finishes_again(TRANSLATE, ARGUMENTS, FOLDER, uninterrupted(1), tmp_path)


@pytest.mark.slow
def test_two_processes_and_accumulation_change_no_loss(tmp_path):
    """Pieces have different numbers of subwords; each counts as one piece of the step's mean."""
    prepared(tmp_path / "data")
    losses, tests = [], []
    for processes, most in ((1, 4), (2, 1), (2, 2), (1, 1)):
        out = f"runs-{processes}-{most}"
        flags = ["--model.dropout", "0", "--micro-batch-size", str(most), "--output-dir", out]
        done = TRANSLATE.run(*ARGUMENTS, *flags, cwd=tmp_path, processes=processes)
        assert done.returncode == 0, done.stderr
        lines = metrics_without_time(tmp_path / out / FOLDER.relative_to("runs"))
        losses.append([line["loss"] for line in lines])
        result = json.loads((tmp_path / out / FOLDER.relative_to("runs") / "result.json").read_text())
        tests.append([result["metrics"][name] for name in ("bleu", "chrf", "token_accuracy")])
    for found, metrics in zip(losses[1:], tests[1:], strict=True):
        assert found == pytest.approx(losses[0], rel=1e-5)
        assert metrics == pytest.approx(tests[0], abs=0.5)


@pytest.mark.slow
def test_loader_processes_change_nothing(uninterrupted, tmp_path):
    prepared(tmp_path / "data")
    done = TRANSLATE.run(*ARGUMENTS, "--num-workers", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    same_outcome(tmp_path / FOLDER, uninterrupted(1))
