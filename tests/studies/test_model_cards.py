"""Model cards: each sentence of every task's card is true of the result that it is made of."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from golu_core.training.export.model_card import Usage, write_card
from golu_core.training.runs.results import PrimaryMetric, Result, read_result
from golu_core.training.tasks.task import installed_tasks
from runs_on_disk import write_run

TASKS = installed_tasks()
# which split each metric is of, by how it is called; the values are made up so that each is found by its number
SPLITS = {
    "": "on the test split",
    "valid_": "on the validation split",
    "sampled_": "on random windows of the test split",
}
FACTS: dict[str, dict[str, Any]] = {
    "vision": {"train": 1437, "test": 360, "classes": 10},
    "detect": {"train": 120, "test": 30, "left_out": 3},
    "diffusion": {"train": 1437, "test": 360},
    "lm": {"train": {"tokens": 1_089_000}, "test": {"tokens": 52_000}},
    "translation": {
        "train": {"pairs": 30_000, "subwords": [963_560, 1_084_960], "left_out": {"an empty side": 12, "longer": 5}},
        "valid": {"pairs": 20, "subwords": [300, 310], "left_out": {}},
        "test": {"pairs": 24, "subwords": [400, 410], "left_out": {}},
    },
}
SHOWN = {
    "vision": ["training 1,437 images, test 360 images, 10 classes"],
    "detect": ["training 120 images, test 30 images"],
    "diffusion": ["training 1,437 images, test 360 images"],
    "lm": ["training 1,089,000 tokens, test 52,000 tokens"],
    "translation": [
        "training 30,000 pairs and 963,560 + 1,084,960 subwords and 17 left out",
        "validation 20 pairs and 300 + 310 subwords, test 24 pairs and 400 + 410 subwords",
    ],
}


def metrics_of(task: str) -> dict[str, float]:
    """Every metric of a task, of each split that a run may take it of."""
    names = [prefix + name for prefix in SPLITS for name in TASKS[task].metrics]
    return {name: 10 + number / 8 for number, name in enumerate(names)}


def card_of(task: str, folder: Path) -> tuple[str, Result]:
    recipe = next(iter(TASKS[task].recipes))
    run = write_run(folder, task, recipe, "golu", 0, metrics_of(task))
    values = read_result(run / "result.json")
    primary = PrimaryMetric("loss", 1.0, False)
    result = Result(**{**vars(values), "data": FACTS[task], "primary_metric": primary})
    write_card(folder, result, Usage("a-task", "pytorch", "nothing", ["y = 1"]))
    return (folder / "README.md").read_text(), result


@pytest.mark.parametrize("task", TASKS)
def test_each_metric_is_named_with_the_split_that_it_is_of(task, tmp_path):
    card, result = card_of(task, tmp_path)
    rows = dict(re.findall(r"^\| (.+?) \| (.+) \|$", card.replace("\\_", "_"), re.M))
    for name, value in result.metrics.items():
        prefix = next((p for p in SPLITS if p and name.startswith(p)), "")
        label = TASKS[task].metrics[name.removeprefix(prefix)].label
        unit = "%" if "(%)" in label else ""
        assert rows[name] == f"{value:.6g}{unit}, {SPLITS[prefix]}", name


@pytest.mark.parametrize("task", TASKS)
def test_hubs_read_each_metric_under_its_split(task, tmp_path):
    card, result = card_of(task, tmp_path)
    (line,) = (line for line in card.splitlines() if line.startswith("model-index: "))
    ((_, entries),) = ((index["name"], index["results"]) for index in json.loads(line.partition(": ")[2]))
    found = {m["type"]: (m["value"], entry["dataset"]["split"]) for entry in entries for m in entry["metrics"]}
    assert found == {
        name: (value, "validation" if name.startswith("valid_") else "test") for name, value in result.metrics.items()
    }


@pytest.mark.parametrize("task", TASKS)
def test_the_data_are_counted_with_their_units(task, tmp_path):
    card, _ = card_of(task, tmp_path)
    for part in SHOWN[task]:
        assert part in card
    assert "[" not in card.split("---")[2].split("```")[0].replace("\\[", "[")


def test_every_task_is_here():
    assert set(FACTS) == set(SHOWN) == set(TASKS)
