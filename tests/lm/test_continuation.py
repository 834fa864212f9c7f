"""A run that was killed and started again ends bit for bit like one that was not; losses are pinned."""

from __future__ import annotations

import functools
import json
import random
import signal
from pathlib import Path

import pytest

from command_line import finishes_again, metrics_without_time, same_outcome, survives_kills, wait_for_step
from lm_program import FOLDER, LM, TINY

ARGUMENTS = ["train", "babygpt-pydocs", *TINY]
GOLDEN = Path(__file__).parent / "golden_losses.json"


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    @functools.cache
    def run(processes):
        cwd = tmp_path_factory.mktemp(f"whole{processes}")
        done = LM.run(*ARGUMENTS, cwd=cwd, processes=processes)
        assert done.returncode == 0, done.stderr
        return cwd / FOLDER

    return run


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2])  # one process is killed in golu-vision's
def test_killed_several_times_then_finished(processes, uninterrupted, tmp_path):
    steps = sorted(random.Random(processes).sample(range(1, 11), 3))
    survives_kills(LM, ARGUMENTS, FOLDER, tmp_path, processes, steps)
    same_outcome(tmp_path / FOLDER, uninterrupted(processes))


@pytest.mark.slow
def test_killed_behind_the_last_step(uninterrupted, tmp_path):
    finishes_again(LM, ARGUMENTS, FOLDER, uninterrupted(1), tmp_path)


@pytest.mark.slow
def test_a_signal_saves_and_the_run_continues_with_another_number_of_processes(tmp_path):
    arguments = [*ARGUMENTS, "--model.dropout", "0"]  # dropout depends on how the batch is split
    process = LM.start(*arguments, cwd=tmp_path)
    assert wait_for_step(process, tmp_path / FOLDER, 2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    done = LM.run(*arguments, cwd=tmp_path, processes=2)
    assert done.returncode == 0, done.stderr
    other = tmp_path / "other"
    other.mkdir()
    assert LM.run(*arguments, cwd=other).returncode == 0
    losses, expected = ([line["loss"] for line in metrics_without_time(p / FOLDER)] for p in (tmp_path, other))
    assert losses == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_losses_are_those_of_the_golden_curve(tmp_path):
    """Text of its own, so that the curve does not depend on Python's version. Tolerance: other CPUs round otherwise."""
    golden = json.loads(GOLDEN.read_text())
    text = tmp_path / "numbers.txt"
    text.write_text(" ".join(f"{n} squared is {n * n}," for n in range(3000)))
    arguments = [*golden["arguments"], "--data.text", str(text)]
    done = LM.run(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = metrics_without_time(tmp_path / "runs/lm/babygpt-text/golu/seed0")
    losses = [line["loss"] for line in lines if line["split"] == "train"]
    assert losses == pytest.approx(golden["train_losses"], rel=golden["relative_tolerance"])
    assert lines[-1]["loss"] == pytest.approx(golden["test_loss"], rel=golden["relative_tolerance"])
    assert losses[-1] < 0.7 * losses[0]
