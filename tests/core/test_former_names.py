"""Fields that were renamed: flags, studies, and run folders with the old names still work, and no checksum changes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from golu_core.studies.aggregate import Flags as AggregateFlags
from golu_core.training.config.former_names import (
    former_names,
    former_values,
    renamed_fields,
    renamed_values,
    with_new_names,
)
from golu_core.training.config.identity import added_fields, config_sha256, differences, flattened, runtime_fields
from golu_core.training.config.run_config import to_json
from golu_core.training.runs.run_files import config_from_file, config_to_file
from golu_core.training.tasks.command_line import CommandLine
from golu_core.training.tasks.task import Task, installed_tasks, recipes_of, resolved

RECIPES = [(task, name) for task in installed_tasks().values() for name in recipes_of(task)]
FLAGS = [
    AggregateFlags,
    *(resolved(task.evaluation_flags) for task in installed_tasks().values()),
    *(resolved(c.flags) for task in installed_tasks().values() for c in task.commands.values() if c.flags is not None),
]


def under_old_names(config: Any) -> dict[str, Any]:
    """The JSON values of a config with every renamed field and value under its former name."""

    def renamed(value: Any, kept: Any) -> Any:
        if not dataclasses.is_dataclass(kept):
            return value
        old, values = former_names(type(kept)), former_values(type(kept))
        return {
            old.get(name, name): (
                values[name].get(inner, inner) if name in values else renamed(inner, getattr(kept, name, None))
            )
            for name, inner in value.items()
        }

    return renamed(to_json(config), config)


@pytest.mark.parametrize(("task", "name"), RECIPES, ids=lambda value: getattr(value, "name", value))
def test_a_config_of_the_version_before_is_read_and_has_the_same_checksum(task: Task, name: str, tmp_path):
    config = recipes_of(task)[name]
    before = under_old_names(config)
    assert before != to_json(config), "every recipe has a renamed field"
    values = {**config_to_file(config), **before}
    for new in former_names(type(config)):
        del values[new]
    read = config_from_file(values, type(config), tmp_path)
    assert read == config and config_sha256(read) == config_sha256(config) and differences(read, config) == []


@pytest.mark.parametrize(("task", "name"), RECIPES, ids=lambda value: getattr(value, "name", value))
def test_a_checksum_is_that_of_the_former_names(task: Task, name: str):
    """Computed by hand from the config as the version before wrote it."""
    check_checksum(recipes_of(task)[name])


def check_checksum(config: Any) -> None:
    old = dict(renamed_fields(type(config)))
    left_out = {old.get(field, field) for field in runtime_fields(config)}
    added = {old.get(field, field): value for field, value in added_fields(config)}
    flat = {
        field: int(value) if isinstance(value, float) and value.is_integer() else value
        for field, value in flattened(under_old_names(config), frozenset(left_out)).items()
    }
    flat = {field: canonical(value) for field, value in flat.items() if added.get(field, ...) != value}
    assert hashlib.sha256(json.dumps(flat, sort_keys=True).encode()).hexdigest() == config_sha256(config)


def canonical(value: Any) -> Any:
    if isinstance(value, list):
        return [canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def old_flags() -> Iterator[Any]:
    """Each renamed field of each recipe's config, once, with a value that the recipe's own type has."""
    seen = set()
    for task, name in reversed(RECIPES):  # the first ones are for data that exclude some flags
        for new, old in renamed_fields(type(recipes_of(task)[name])):
            owner = recipes_of(task)[name]
            for part in new.split(".")[:-1]:
                owner = getattr(owner, part)
            if (task.name, new) not in seen and hasattr(owner, new.rpartition(".")[2]):
                seen.add((task.name, new))
                yield pytest.param(task, name, new, old, id=f"{task.name}-{old}")


@pytest.mark.parametrize(("task", "name", "new", "old"), list(old_flags()))
def test_an_old_flag_sets_the_field_and_names_the_new_one(task: Task, name: str, new: str, old: str, capsys):
    config = recipes_of(task)[name]
    owner: Any = config
    for part in new.split(".")[:-1]:
        owner = getattr(owner, part)
    field = new.rpartition(".")[2]
    value, hint = getattr(owner, field), typing.get_type_hints(type(owner))[field]
    is_switch = hint is bool
    dashed = old.replace("_", "-")
    wanted = not value if is_switch else (value or 8)
    owner_of_flag, _, last = dashed.rpartition(".")
    flag = f"--{owner_of_flag}{'.' if owner_of_flag else ''}{'no-' if is_switch and not wanted else ''}{last}"
    words = [flag] if is_switch else [f"{flag}={wanted}"]
    read: Any = CommandLine(task).config([name, *words])
    for part in new.split("."):
        read = getattr(read, part)
    assert read == wanted
    said = capsys.readouterr().err
    assert flag in said and new.rpartition(".")[2].replace("_", "-") in said and said.count("\n") == 1


RENAMED_VALUES = {
    (task.name, path, new, old): (task, name)
    for task, name in reversed(RECIPES)
    for path, values in renamed_values(type(recipes_of(task)[name]))
    for new, old in values.items()
}


@pytest.mark.parametrize("spelled", ["{} {}", "{}={}"])
@pytest.mark.parametrize("renamed", RENAMED_VALUES, ids="-".join)
def test_an_old_value_is_read_as_the_new_one_and_keeps_the_checksum(renamed, spelled, capsys, tmp_path: Path):
    task, name = RENAMED_VALUES[renamed]
    _, path, new, old = renamed
    config = CommandLine(task).config([name, *spelled.format(f"--{path}", old).split()])
    read: Any = config
    for part in path.split("."):
        read = getattr(read, part)
    said = capsys.readouterr().err
    assert read == new and f"{old} is now --{path} {new}" in said and said.count("\n") == 1
    before = {**config_to_file(config), **under_old_names(config)}
    for field in former_names(type(config)):
        del before[field]
    assert f'"{old}"' in json.dumps(before) and f'"{new}"' not in json.dumps(before)
    there = config_from_file(before, type(config), tmp_path)
    assert there == config and config_sha256(there) == config_sha256(config) and differences(there, config) == []


def test_values_of_this_version_have_the_checksum_of_the_version_before():
    """Computed from the config as the version before wrote it, not by the code under test."""
    assert RENAMED_VALUES
    for (_, path, new, _), (task, name) in RENAMED_VALUES.items():
        check_checksum(CommandLine(task).config([name, f"--{path}", new]))


@pytest.mark.parametrize("kind", FLAGS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_old_flags_of_commands_are_replaced(kind: type):
    for new, old in renamed_fields(kind):
        words, (note,) = with_new_names(kind, [f"--{old.replace('_', '-')}", "3"])
        assert words == [f"--{new.replace('_', '-')}", "3"] and words[0] in note


def test_a_new_name_is_no_old_one_and_there_is_something_to_test():
    kinds = {type(recipes_of(task)[name]) for task, name in RECIPES} | set(FLAGS)
    pairs = [dict(renamed_fields(kind)) for kind in kinds]
    assert any(pairs)
    assert all(not set(found) & set(found.values()) for found in pairs)


def test_nothing_else_is_touched(tmp_path: Path):
    words = ["RUN", "--other=at", "at", "--at-once", "3", "-h"]
    assert with_new_names(AggregateFlags, words) == (words, [])
