"""`--holdout validation` in every task: training data are held out, and no file of the test set is read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from command_line import runner_in_this_process
from golu_core.training.config.run_config import EpochConfig
from golu_core.training.data.holdout import second_part, split_training_data
from golu_core.training.messages.errors import RequestError
from golu_core.training.tasks.command_line import CommandLine
from golu_core.training.tasks.task import Metric, Task, installed_tasks, task_of
from short_runs import SHORT, only_run

HELD_OUT = ["--holdout", "validation"]
QUICKEST = ("digits", "babygpt-pydocs")


def test_every_task_holds_data_out():
    assert all(task.has_holdout for task in installed_tasks().values())


@pytest.fixture
def run_here(monkeypatch, capfd):
    def run(recipe: str, *words: str, cwd: Path) -> SimpleNamespace:
        runner: Any = runner_in_this_process(CommandLine(task_of(recipe)), monkeypatch, capfd)
        found: SimpleNamespace = runner(*words, cwd=cwd)
        return found

    return run


def broken_test_set(data: Path) -> int:
    """Overwrite every file of a task's test set, and return how many there were."""
    files = [path for path in data.rglob("*") if path.is_file()]
    of_test = [path for path in files if {"test", "val2017"} & set(path.parts) or path.name.startswith("test.")]
    for path in of_test:
        path.write_bytes(b"not of this world")
    return len(of_test)


@pytest.mark.parametrize(
    "recipe", [name if name in QUICKEST else pytest.param(name, marks=pytest.mark.slow) for name in SHORT]
)
def test_the_test_set_is_not_read(recipe: str, tmp_path: Path, run_here):
    flags = [*SHORT[recipe], "--data-dir", "data", *HELD_OUT]
    done = run_here(recipe, "train", recipe, *flags, "--output-dir", "first", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert " validation " in next(line for line in done.stdout.splitlines() if line.startswith("data "))
    assert "validation: " in done.stdout and "test: " not in done.stdout
    assert broken_test_set(tmp_path / "data")
    done = run_here(recipe, "train", recipe, *flags, "--output-dir", "second", cwd=tmp_path)
    assert done.returncode == 0, done.stderr

    first, second = only_run(tmp_path / "first"), only_run(tmp_path / "second")
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()
    results = [json.loads((run / "result.json").read_text()) for run in (first, second)]
    assert results[0]["metrics"] == results[1]["metrics"] and results[0]["data"] == results[1]["data"]
    assert results[0]["data"]["holdout"] == "validation"
    done = run_here(recipe, "evaluate", str(second), cwd=tmp_path)
    assert done.returncode == 0 and "the same as in result.json" in done.stderr, done.stderr
    done = run_here(
        recipe, "train", recipe, *flags, "--holdout", "test", "--output-dir", "first", cwd=tmp_path
    )  # not the same run
    assert done.returncode == 2 and "holdout: validation there, test asked for" in done.stderr


def test_parts_depend_on_names_alone_and_keep_related_ones_together():
    groups = [f"photo{number // 2}" for number in range(400)]
    labels = [number % 4 // 2 for number in range(400)]
    kept = split_training_data(groups, labels)
    assert sorted(kept.train + kept.validation) == list(range(400))
    assert not {groups[n] for n in kept.train} & {groups[n] for n in kept.validation}
    assert [sum(labels[n] == label for n in kept.validation) for label in (0, 1)] == [20, 20]
    order = list(range(399, -1, -1))
    again = split_training_data([groups[n] for n in order], [labels[n] for n in order])
    assert {order[n] for n in again.validation} == set(kept.validation)
    assert second_part(["one"] * 9, 0.1) == set()  # never all
    assert len(split_training_data([str(n) for n in range(1000)]).validation) == 100
    with pytest.raises(RequestError, match="too few"):
        split_training_data(["one", "one"])


def test_a_task_that_holds_nothing_out_refuses_the_flag(tmp_path):
    recipe = EpochConfig(recipe="line", output_dir=tmp_path)
    metrics = {"loss": Metric("loss", 5, higher_is_better=False)}
    task = Task("tiny", "Lines", "tiny", {"line": recipe}, metrics, "points/s", train="", evaluate="")
    task.check_request(recipe)
    with pytest.raises(RequestError, match="tiny cannot hold out training data"):
        task.check_request(replace(recipe, holdout="validation"))
