"""A run that is asked to be longer continues where that is the longer run bit for bit, and is refused elsewhere."""

from __future__ import annotations

import json
import shutil
import typing
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from command_line import metrics_without_time, runner_in_this_process
from golu_core.training.config.optim import LastAverage, WeightAverage
from golu_core.training.config.run_config import EpochConfig
from golu_core.training.config.schedules import Schedule, StepWarmup, learning_rate
from golu_core.training.runs.lengthening import is_longer, why_another_run
from golu_core.training.tasks.command_line import CommandLine
from golu_core.training.tasks.task import task_of
from short_runs import SHORT, only_run

QUICKEST = ("digits", "babygpt-pydocs")
AVERAGED = "transformer-numbers"  # averages its last weights


@pytest.fixture
def run_here(monkeypatch, capfd):
    def run(recipe: str, *flags: str, cwd: Path, code: int = 0) -> SimpleNamespace:
        runner: Any = runner_in_this_process(CommandLine(task_of(recipe)), monkeypatch, capfd)
        done: SimpleNamespace = runner("train", recipe, *SHORT[recipe], *flags, "--data-dir", "data", cwd=cwd)
        assert done.returncode == code, done.stderr
        return done

    return run


def equal(folder: Path, other: Path) -> None:
    assert (folder / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    mine, theirs = (json.loads((run / "config.json").read_text()) for run in (folder, other))
    assert {**mine, "output_dir": ""} == {**theirs, "output_dir": ""}
    assert metrics_without_time(folder) == metrics_without_time(other)


@pytest.mark.parametrize(
    "recipe",
    [name if name in QUICKEST else pytest.param(name, marks=pytest.mark.slow) for name in SHORT if name != AVERAGED],
)
def test_a_longer_run_is_the_run_that_was_longer_from_the_first(recipe: str, tmp_path: Path, run_here):
    run_here(recipe, "--max-steps", "3", "--output-dir", "one", cwd=tmp_path)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    done = run_here(recipe, "--max-steps", "5", "--output-dir", "one", cwd=tmp_path)
    assert "max_steps 3, and is trained on to" in done.stderr and "after step 3 of 5" in done.stdout
    run_here(recipe, "--max-steps", "5", "--output-dir", "whole", cwd=tmp_path)
    one, whole = only_run(tmp_path / "one"), only_run(tmp_path / "whole")
    equal(one, whole)
    done = run_here(recipe, "--max-steps", "3", "--output-dir", "one", cwd=tmp_path, code=2)
    assert "max_steps: 5 there, 3 asked for" in done.stderr  # not shorter
    if recipe not in QUICKEST[:1]:
        return
    # killed at each place where the longer run takes the folder over
    for taken_over in ([], ["run.json"], ["run.json", "config.json"]):
        shutil.copytree(tmp_path / "two", tmp_path / "cut")
        cut = only_run(tmp_path / "cut")
        (cut / "result.json").unlink()
        for name in taken_over:
            text = (whole / name).read_text().replace('"output_dir": "whole"', '"output_dir": "cut"')
            (cut / name).write_text(text)
        run_here(recipe, "--max-steps", "5", "--output-dir", "cut", cwd=tmp_path)
        equal(cut, whole)
        shutil.rmtree(tmp_path / "cut")


def test_what_would_be_another_run_is_refused_with_the_way_on(tmp_path: Path, run_here):
    run_here("digits", "--max-steps", "2", "--output-dir", "runs", cwd=tmp_path)
    before = sorted(path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*"))
    done = run_here("digits", "--max-steps", "2", "--epochs", "9", "--output-dir", "runs", cwd=tmp_path, code=2)
    assert "with --schedule cosine, each learning rate depends on the length of the run" in done.stderr
    assert "--init-from runs/vision/digits/golu/seed0" in done.stderr
    flags = ["--max-steps", "9", "--optim.lr", "0.3"]
    done = run_here("digits", *flags, "--output-dir", "runs", cwd=tmp_path, code=2)
    assert "max_steps: 2 there, 9 asked for" in done.stderr and "optim.lr" in done.stderr
    assert before == sorted(path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*"))
    shutil.rmtree(only_run(tmp_path / "runs") / "checkpoints")
    done = run_here("digits", "--max-steps", "4", "--output-dir", "runs", cwd=tmp_path, code=2)
    assert "has no checkpoint to continue from" in done.stderr


def schedules() -> list[Schedule]:
    """Each schedule with its defaults, and each with a value of each field that it can have."""
    found: list[Schedule] = []
    for kind in typing.get_args(Schedule):
        found.append(kind())
        names = {f.name for f in fields(kind)}
        found += [replace(kind(), per=per) for per in ("step", "epoch") if "per" in names]
        found.append(replace(kind(), warmup=StepWarmup(steps=3)))
    return found


@pytest.mark.parametrize("schedule", schedules(), ids=str)
def test_a_schedule_is_continued_where_its_rates_are_the_same(schedule: Schedule):
    short, long = (EpochConfig(recipe="line", epochs=epochs, schedule=schedule) for epochs in (40, 80))
    rates = [
        [learning_rate(schedule, 0.1, step, 2, config.epochs) for step in range(1, 80)] for config in (short, long)
    ]
    assert is_longer(long, short) and not is_longer(short, long)
    assert (rates[0] == rates[1]) == (why_another_run(long, short) is None)
    limited = replace(short, max_steps=5)
    assert is_longer(short, limited) and why_another_run(short, limited) is None  # `max_steps` changes no rate


@pytest.mark.parametrize("average", [LastAverage(count=2, every=2), WeightAverage(every=2)])
def test_an_average_is_continued_where_it_is_of_the_same_weights(average: LastAverage | WeightAverage):
    moved = [{step for step in range(1, 7) if average.moves_after(step, total)} for total in (6, 9)]
    config = SimpleNamespace(average=average, epochs=9, schedule=None)
    reason = why_another_run(config, SimpleNamespace(epochs=6))  # type: ignore[arg-type]
    assert (moved[0] == moved[1]) == (reason is None)
