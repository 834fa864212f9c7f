"""A run that was killed and started again ends bit for bit like one that was not."""

from __future__ import annotations

import functools
import json
import random
import signal
from pathlib import Path

import pytest

from command_line import kill_all, metrics_without_time, same_outcome, survives_kills, wait_for_step
from vision_program import FAST, VISION

FOLDER = Path("runs/vision/digits/golu/seed0")


def arguments(root: Path, *more: str) -> list[str]:
    return ["train", "digits", "--data.root", str(root), "--epochs", "5", *FAST, *more]  # 4 steps an epoch


@pytest.fixture(scope="module")
def uninterrupted(few_digits, tmp_path_factory):
    @functools.cache
    def run(processes):
        cwd = tmp_path_factory.mktemp(f"whole{processes}")
        done = VISION.run(*arguments(few_digits), cwd=cwd, processes=processes)
        assert done.returncode == 0, done.stderr
        return cwd / FOLDER

    return run


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_several_times_then_finished(processes, few_digits, uninterrupted, tmp_path):
    whole = uninterrupted(processes)
    steps = sorted(random.Random(processes).sample(range(1, 18), 3))
    survives_kills(VISION, arguments(few_digits), FOLDER, tmp_path, processes, steps)
    same_outcome(tmp_path / FOLDER, whole)


@pytest.mark.slow
def test_the_metrics_of_two_processes_are_those_of_the_saved_weights(uninterrupted):
    """Each process has running statistics of its own images; one process's are saved, and all must evaluate those."""
    whole = uninterrupted(2)
    done = VISION.run("evaluate", str(whole), cwd=whole)
    assert done.returncode == 0, done.stderr
    found = {name: float(value) for name, value in (line.split() for line in done.stdout.splitlines())}
    assert found == pytest.approx(json.loads((whole / "result.json").read_text())["metrics"], rel=1e-4)


@pytest.mark.slow
def test_loader_processes_change_nothing(few_digits, uninterrupted, tmp_path):
    whole = uninterrupted(1)
    done = VISION.run(*arguments(few_digits, "--num-workers", "2"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / FOLDER / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "number"), [(1, signal.SIGINT), (1, signal.SIGTERM), (2, signal.SIGTERM)])
def test_signal_saves_and_the_same_command_continues(processes, number, few_digits, uninterrupted, tmp_path):
    whole = uninterrupted(processes)
    process = VISION.start(*arguments(few_digits), cwd=tmp_path, processes=processes)
    assert wait_for_step(process, tmp_path / FOLDER, 2)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert "the same command continues the run" in errors
    if processes == 1:  # a launcher has an exit status of its own
        assert process.returncode == 128 + number
    assert not (tmp_path / FOLDER / "result.json").exists()
    done = VISION.run(*arguments(few_digits), cwd=tmp_path, processes=processes)
    assert done.returncode == 0, done.stderr
    assert "continuing" in done.stdout
    assert (tmp_path / FOLDER / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_one_and_two_processes_see_the_same_batches(few_digits, tmp_path):
    losses = []
    transformer = ["--model.name", "timm/test_vit", "--model.default-activation", "gelu"]  # no batch norm
    sized = ["--data.size", "160", "--max-steps", "20", "--optim.lr", "0.01"]
    for processes in (1, 2):
        cwd = tmp_path / str(processes)
        cwd.mkdir()
        done = VISION.run(*arguments(few_digits, *transformer, *sized), cwd=cwd, processes=processes)
        assert done.returncode == 0, done.stderr
        lines = metrics_without_time(cwd / FOLDER)
        losses.append([line["loss"] for line in lines if line["split"] == "train"])
    assert len(losses[0]) == 20
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.slow
def test_batch_norm_per_process_sees_as_many_images_on_one_and_two_processes(few_digits, tmp_path):
    """Its losses are those of one process, and its averages survive kills."""
    flags = arguments(few_digits, "--batch-norm", "per_process", "--micro-batch-size", "8", "--average", "ema")
    losses = []
    for processes in (1, 2):
        cwd = tmp_path / str(processes)
        cwd.mkdir()
        done = VISION.run(*flags, cwd=cwd, processes=processes)
        assert done.returncode == 0, done.stderr
        assert "batch norm   over 8 samples at a time, of the 16 of a step" in done.stdout
        assert "without CUDA" not in done.stderr  # which is a warning of what cannot be synchronized
        lines = metrics_without_time(cwd / FOLDER)
        losses.append([line["loss"] for line in lines if line["split"] == "train"])
    assert losses[1][:5] == pytest.approx(losses[0][:5], rel=1e-4)
    killed = tmp_path / "killed"
    killed.mkdir()
    survives_kills(VISION, flags, FOLDER, killed, 2, [3, 9, 14])
    same_outcome(killed / FOLDER, tmp_path / "2" / FOLDER)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(few_digits, uninterrupted, tmp_path):
    process = VISION.start(*arguments(few_digits), cwd=tmp_path)
    assert wait_for_step(process, tmp_path / FOLDER, 7)
    kill_all(process)
    newest = sorted((tmp_path / FOLDER / "checkpoints").glob("step-*"))[-1]
    with (newest / "optimizer.pt").open("r+b") as file:
        file.seek(1000)
        file.write(b"damage")
    done = VISION.run(*arguments(few_digits), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{newest.name} is damaged (optimizer.pt" in done.stderr
    whole = uninterrupted(1)
    assert (tmp_path / FOLDER / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_no_whole_checkpoint_is_said(few_digits, tmp_path):
    process = VISION.start(*arguments(few_digits), cwd=tmp_path)
    assert wait_for_step(process, tmp_path / FOLDER, 5)
    kill_all(process)
    for checkpoint in (tmp_path / FOLDER / "checkpoints").glob("step-*"):
        (checkpoint / "model.safetensors").unlink()
    (tmp_path / FOLDER).with_name(".seed0.lock").unlink()  # of the killed process; the next one takes it away
    before = sorted(str(p) for p in tmp_path.rglob("*"))
    done = VISION.run(*arguments(few_digits), cwd=tmp_path)
    assert done.returncode == 2
    assert "checkpoints in" in done.stderr and "--overwrite" in done.stderr
    assert sorted(str(p) for p in tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_a_second_process_is_refused_until_the_first_is_killed(few_digits, uninterrupted, tmp_path):
    process = VISION.start(*arguments(few_digits, "--num-workers", "1"), cwd=tmp_path)
    assert wait_for_step(process, tmp_path / FOLDER, 2)
    process.send_signal(signal.SIGSTOP)
    second = VISION.run(*arguments(few_digits), cwd=tmp_path)
    assert second.returncode == 2
    assert "another process is training in" in second.stderr
    kill_all(process)
    assert VISION.run(*arguments(few_digits), cwd=tmp_path).returncode == 0
    same_outcome(tmp_path / FOLDER, uninterrupted(1))
