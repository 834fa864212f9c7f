"""One recipe as `recipes --show` prints it: where it is from, the paper's results, and every setting."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from ..config.identity import flattened
from ..config.run_config import ACTIVATION_SOURCE, RunConfig, to_json
from .task import Task

_WIDTH = 100


def recipe_page(task: Task[Any], recipe: RunConfig) -> str:
    """Return the page of a recipe as lines of plain text."""
    lines = [f"{task.program} train {recipe.recipe}", ""]
    paper = recipe.paper
    if paper is not None:
        size = f", {paper.size:,} parameters" if paper.size else ""
        lines += [f"{paper.model} on {paper.dataset}{size}; compared by {recipe.primary_metric}", ""]
    note = note_of(task, recipe.recipe)
    if note:
        lines += [*textwrap.wrap(note, _WIDTH), ""]
    if paper is not None and paper.results:
        lines += ["the paper's results", *(f"  {name:<14}{_shown(by)}" for name, by in paper.results.items()), ""]
    lines.append("settings, each a flag of train")
    settings = flattened(to_json(recipe), frozenset({"paper", "recipe", ACTIVATION_SOURCE}))
    width = max(map(len, settings)) + 2
    lines += [f"  {name:<{width}}{json.dumps(value, ensure_ascii=False)}" for name, value in settings.items()]
    return "\n".join(lines)


def _shown(by_activation: Mapping[str, tuple[float, float]]) -> str:
    return ", ".join(f"{name} {mean:g} ± {spread:g}" for name, (mean, spread) in by_activation.items())


def note_of(task: Task[Any], recipe: str) -> str:
    """Return the text below a recipe's assignment in its package's `recipes` module, or nothing.

    Such a text is for readers of the module, and Python drops it when it compiles; so it is read from the source.
    """
    try:
        module = importlib.import_module(f"{task.package}.recipes")
        source = inspect.getsource(module)
    except (ImportError, OSError):  # another layout, or a package without its sources
        return ""
    for name, text in _noted(ast.parse(source)):
        if getattr(getattr(module, name, None), "recipe", None) == recipe:
            return " ".join(text.split())
    return ""


def _noted(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for assigned, below in zip(tree.body, tree.body[1:], strict=False):
        targets = assigned.targets if isinstance(assigned, ast.Assign) else [getattr(assigned, "target", None)]
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str):
            for target in targets:
                if isinstance(target, ast.Name):
                    yield target.id, below.value.value
