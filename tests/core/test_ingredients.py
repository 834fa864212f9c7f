"""Every published recipe, ingredient by ingredient, against what was published, typed independently."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from golu_core.training.tasks.task import installed_tasks, recipes_of
from ingredient_table import END, START, tables
from ingredients import ingredients_of, rate_at, steps_per_epoch, updates
from published_ingredients import ROWS
from published_row import Differs

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reproduction.md"
UNPUBLISHED = {"digits", "babygpt-pydocs", "babygpt-text", "transformer-numbers", "ddpm-digits", "mlp-digits"}
UNPUBLISHED |= {"mlp-fashion", "resnet20-fashion"}
UNPUBLISHED |= {f"{kind}-digits" for kind in ("deeplabv3", "fasterrcnn", "retinanet", "maskrcnn")}
EDGES = 1_000
"""Steps at either end of each stretch that the quick test compares one by one."""


def here(value: str | Differs) -> str:
    return value.here if isinstance(value, Differs) else value


def test_every_recipe_of_the_paper_is_compared():
    installed = {name: task for task in installed_tasks().values() for name in recipes_of(task)}
    own = {name for task in installed_tasks().values() for name in task.own_data}
    assert set(installed) - own - UNPUBLISHED == set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_ingredients_are_those_published(name):
    assert ingredients_of(name) == {key: here(value) for key, value in ROWS[name].values.items()}


def test_every_difference_is_one_and_has_a_reason():
    differing = [
        (name, key, value)
        for name, row in ROWS.items()
        for key, value in {**row.values, **row.seeing, "learning rate": row.rates}.items()
        if isinstance(value, Differs)
    ]
    assert len(differing) > 20
    for name, key, value in differing:
        assert value.published.strip() and value.here.strip() and value.published != value.here, (name, key)
        assert len(value.why.split()) >= 3, (name, key)


def some_steps(total: int, per_epoch: int) -> list[int]:
    """The first and last steps of a run, those around each epoch's end, and each hundredth."""
    around = (
        {epoch * per_epoch + k for epoch in range(1, total // per_epoch + 1) for k in (-1, 0)}
        if per_epoch > 1
        else set()
    )
    return sorted({*range(EDGES), *range(total - EDGES, total), *range(0, total, 101), *around} & set(range(total)))


def check_rates(name: str, steps: list[int], per_epoch: int) -> None:
    expected = ROWS[name].rate(per_epoch)
    for step in steps:
        here, there = rate_at(name, step, per_epoch), expected(step)
        assert abs(here - there) <= 1e-9 * there + 1e-18, step  # pytest.approx would take a minute for all steps


@pytest.mark.parametrize("name", ROWS)
def test_learning_rates_are_those_published(name):
    per_epoch = steps_per_epoch(name)
    check_rates(name, some_steps(updates(name), per_epoch), per_epoch)


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_the_learning_rate_of_every_step_is_that_published(name):
    check_rates(name, list(range(updates(name))), steps_per_epoch(name))


def test_an_ingredient_that_is_changed_is_noticed(monkeypatch):
    """The comparison can fail: another rate, another network, another average."""
    import ingredients

    task, config = ingredients.recipe_named("efficientnet-b0-imagenet")
    for change in (
        {"optim": dataclasses.replace(config.optim, lr=0.05)},
        {"model": dataclasses.replace(config.model, drop_path=0.2)},
        {"average": dataclasses.replace(config.average, evaluate=True)},
        {"batch_norm": "synchronized"},
    ):
        changed = dataclasses.replace(config, **change)
        monkeypatch.setattr(ingredients, "recipe_named", lambda name, changed=changed: (task, changed))
        found = ingredients_of("efficientnet-b0-imagenet")
        values = ROWS["efficientnet-b0-imagenet"].values
        assert [key for key in found if found[key] != here(values[key])], change


def test_the_page_has_the_tables():
    text = PAGE.read_text()
    printed = text[text.index(START) + len(START) : text.index(END)]
    assert printed.strip() == tables().strip(), "run: python tools/ingredient_table.py"


def test_every_difference_on_the_page_has_a_reason():
    """Tables of differences have `why` as their last column."""
    is_compared, rows = False, 0
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            is_compared = False
        elif cells[-1] == "why":
            is_compared = True
        elif is_compared and set(line) - set("|- "):
            rows += 1
            assert cells[-1] or cells[2:] == ["the same", ""], line
    assert rows > 40
