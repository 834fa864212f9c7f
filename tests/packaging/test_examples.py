"""The names of the front doors: each says what it is, explains its parameters, and shows an example that runs."""

from __future__ import annotations

import ast
import dataclasses
import doctest
import importlib
import importlib.util
import inspect
import itertools
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOORS = ("golu_core", "golu_core.activation", "golu_core.training")
NAMES = {name: door for door in reversed(DOORS) for name in importlib.import_module(door).__all__}
"""Each name with the first door that exports it."""


def home_of(door: str, name: str) -> str:
    """The module that a name of a door is defined in."""
    stub = Path(str(importlib.import_module(door).__file__)).with_suffix(".pyi")
    for node in ast.parse(stub.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and name in {alias.name for alias in node.names}:
            module = f"{door}.{node.module}"
            inner = importlib.import_module(module)
            return home_of(module, name) if hasattr(inner, "__all__") else module
    raise LookupError(f"{door} does not export {name}")


def strings_after(body: list[ast.stmt]) -> dict[str, str]:
    """The names that are assigned in a block, with the docstring on the lines after each assignment."""
    found = {}
    for node, after in itertools.pairwise(body):
        target = (
            node.targets[0]
            if isinstance(node, ast.Assign)
            else node.target
            if isinstance(node, ast.AnnAssign)
            else None
        )
        if isinstance(target, ast.Name) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            found[target.id] = inspect.cleandoc(str(after.value.value))
    return found


def docstring_of(door: str, name: str) -> str:
    """The docstring of a class or function; of a value, such as a type of fields, the one after its assignment."""
    value = getattr(importlib.import_module(door), name)
    if inspect.isclass(value) or inspect.isfunction(value):
        return inspect.cleandoc(vars(value)["__doc__"] or "") if inspect.isclass(value) else inspect.getdoc(value) or ""
    home = sys.modules[home_of(door, name)]
    return strings_after(ast.parse(inspect.getsource(home)).body).get(name, "")


def parameters_of(value: Any) -> list[str]:
    """What a caller passes to a function or class."""
    if inspect.isclass(value) and (issubclass(value, BaseException) or hasattr(value, "__members__")):
        return []
    if dataclasses.is_dataclass(value):
        return [field.name for field in dataclasses.fields(value)]
    return [name for name in inspect.signature(value).parameters if name != "self"]


def explained(value: Any, said: str) -> str:
    """A docstring, with those of the classes that a class is made of and of their fields."""
    if not inspect.isclass(value):
        return said
    texts = [said]
    for base in value.__mro__:
        if base.__module__.startswith("golu_core"):
            (node,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
            fields = strings_after(node.body if isinstance(node, ast.ClassDef) else [])
            texts += [vars(base).get("__doc__") or "", *(f"{name}: {text}" for name, text in fields.items())]
    return "\n".join(texts)


@pytest.mark.parametrize(("name", "door"), NAMES.items())
def test_a_name_is_documented(name, door):
    value, said = getattr(importlib.import_module(door), name), docstring_of(door, name)
    first = said.partition("\n")[0]
    assert first.endswith((".", ":")), f"the first line of {name} is a sentence or a noun phrase: {first!r}"
    assert "\nExamples:\n" in said
    if inspect.isclass(value) or inspect.isfunction(value):
        lines = [line.strip() for line in explained(value, said).splitlines()]
        entries = {part.strip(" *") for line in lines if ":" in line for part in line.partition(":")[0].split(",")}
        assert [parameter for parameter in parameters_of(value) if parameter not in entries] == []


@pytest.mark.parametrize(("name", "door"), NAMES.items())
def test_an_example_runs(name, door, tmp_path, monkeypatch):
    """As a reader would type it: on its own, in an empty folder, which stays empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    example = doctest.DocTestParser().get_doctest(
        docstring_of(door, name), {"__name__": "__main__"}, f"{door}.{name}", None, 0
    )
    source = "".join(step.source for step in example.examples)
    used = [
        (n.module or "", a.name) for n in ast.walk(ast.parse(source)) if isinstance(n, ast.ImportFrom) for a in n.names
    ]
    assert (door, name) in used, "the example imports its name by the door"
    inside = [(module, found) for module, found in used if module.partition(".")[0] == "golu_core"]
    assert [(m, found) for m, found in inside if found not in getattr(importlib.import_module(m), "__all__", ())] == []
    printed: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(example, out=printed.append)
    assert runner.failures == 0, "".join(printed)
    assert list(tmp_path.iterdir()) == []


def listed_on(page: str) -> list[str]:
    """What a page of the reference describes."""
    text = (ROOT / "docs" / "api" / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(r"^::: (\S+)$", text, re.MULTILINE)


@pytest.mark.parametrize("page", ["activation", "training"])
def test_the_reference_has_exactly_the_names_of_the_doors(page):
    doors = ["golu_core.training"] if page == "training" else ["golu_core", "golu_core.activation"]
    assert sorted(listed_on(page)) == sorted(f"{door}.{name}" for name, door in NAMES.items() if door in doors)


def test_the_reference_of_the_tasks_names_modules_that_exist():
    modules = listed_on("tasks")
    assert modules
    assert [name for name in modules if importlib.util.find_spec(name) is None] == []
