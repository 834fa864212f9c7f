"""Runs of every task that start from given weights: what is measured before training, and continued without them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from command_line import metrics_without_time, runner_in_this_process
from golu_core.training.tasks.command_line import CommandLine
from golu_core.training.tasks.task import task_of
from short_runs import SHORT, cut, only_run


def test_every_task_is_here():
    from golu_core.training.tasks.task import installed_tasks

    assert {task_of(recipe).name for recipe in SHORT} == set(installed_tasks())


@pytest.fixture
def run_here(monkeypatch, capfd):
    def run(recipe: str, *flags: str, cwd: Path) -> SimpleNamespace:
        runner: Any = runner_in_this_process(CommandLine(task_of(recipe)), monkeypatch, capfd)
        found: SimpleNamespace = runner("train", recipe, *SHORT[recipe], *flags, "--data-dir", "data", cwd=cwd)
        return found

    return run


@pytest.mark.slow
@pytest.mark.parametrize("recipe", SHORT)
def test_a_run_starts_from_another(recipe: str, tmp_path: Path, run_here):
    own = CommandLine(task_of(recipe)).config([recipe]).default_activation
    done = run_here(recipe, "--activation", own, "--output-dir", "first", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first = only_run(tmp_path / "first")
    flags = ["--activation", "golu", "--init-from", str(first.relative_to(tmp_path))]
    done = run_here(recipe, *flags, "--output-dir", "second", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"was trained with {own}; the run goes on with golu" in done.stderr

    before, after = (json.loads((only_run(tmp_path / n) / "result.json").read_text()) for n in ("first", "second"))
    start, metric = after["start"], before["primary_metric"]["name"]
    assert start["tensors"]["made_new"] == start["tensors"]["left_over"] == 0 < start["tensors"]["loaded"]
    assert start["given"]["activation"] == own and start["swapped"]["activation"] == "golu"
    assert start["given"][metric] == pytest.approx(before["metrics"][metric], rel=1e-5)
    assert start["swapped"].keys() == start["given"].keys()
    if "loss" in start["given"]:  # a detector that has learned nothing finds nothing, with any activation
        assert start["swapped"]["loss"] != start["given"]["loss"]
    assert after["data"]["inputs"]["init_from"].startswith("tensors:")

    # stopped, its source gone, and continued: the same bytes, and the same lines
    run = cut(tmp_path / "second", tmp_path / "cut")
    shutil.rmtree(first)
    done = run_here(recipe, *flags, "--output-dir", "cut", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "the run continues from its checkpoint" in done.stderr
    whole = only_run(tmp_path / "second")
    assert (run / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert metrics_without_time(run) == metrics_without_time(whole)
    assert json.loads((run / "result.json").read_text())["start"] == start
    done = run_here(recipe, *flags, "--output-dir", "third", cwd=tmp_path)
    assert done.returncode == 2 and not (tmp_path / "third").exists()


@pytest.mark.parametrize("recipe", SHORT)
@pytest.mark.parametrize("flags", [["--freeze", "layer1"], ["--optim.backbone-lr-scale", "0.1"]], ids=lambda f: f[0])
def test_flags_of_given_weights_need_them(recipe: str, flags: list[str], tmp_path: Path, run_here):
    done = run_here(recipe, *flags, cwd=tmp_path)
    assert done.returncode == 2 and "needs pretrained weights: pass --init-from" in done.stderr
    assert not any(tmp_path.iterdir())
