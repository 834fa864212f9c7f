"""Runs that must not stand in one row: they differ in more than activation and seed."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from golu_core.training.messages.errors import RequestError

from .collect import RunResult, shown


def differing_settings(runs: Iterable[RunResult]) -> dict[tuple[str, str], dict[str, dict[str, list[Path]]]]:
    """For each task and recipe whose runs differ in their settings: the fields, and which runs have which value."""
    groups: dict[tuple[str, str], list[RunResult]] = defaultdict(list)
    for run in runs:
        groups[run.result.task, run.result.recipe].append(run)
    found = {}
    for recipe, group in groups.items():
        distinct = {id(run.settings): run.settings for run in group if run.settings is not None}
        names = sorted({name for settings in distinct.values() for name in settings})
        fields = [name for name in names if len({_text(s.get(name)) for s in distinct.values()}) > 1]
        if fields:
            found[recipe] = {name: _folders_by_value(group, name) for name in fields}
    return found


def _folders_by_value(runs: Iterable[RunResult], name: str) -> dict[str, list[Path]]:
    folders: dict[str, list[Path]] = defaultdict(list)
    for run in runs:
        if run.settings is not None:
            folders[_text(run.settings.get(name))].append(run.folder)
    return dict(sorted(folders.items()))


def refuse_mixed(runs: Sequence[RunResult]) -> None:
    """Raises RequestError if runs of one recipe have differing configs; it names the fields that differ."""
    refuse_two_sources(runs)
    lines = [
        f"{task} {recipe}: {name}: {', '.join(_counted(value, folders) for value, folders in values.items())}"
        for (task, recipe), fields in sorted(differing_settings(runs).items())
        for name, values in fields.items()
    ]
    if lines:
        raise RequestError(
            "runs of one recipe have differing configs:\n  "
            + "\n  ".join(lines)
            + "\npass fewer folders, or --allow-mixed, which shows each config in a separate row"
        )


def refuse_two_sources(runs: Iterable[RunResult]) -> None:
    """Raises RequestError if an activation's runs have different code of it: they would be one column of two things."""
    sources: dict[str, dict[str, Path]] = defaultdict(dict)
    for run in runs:
        sources[run.result.activation].setdefault(run.activation_source, run.folder)
    for name, found in sources.items():
        if len(found) > 1:
            listed = ", ".join(f"{source or 'none'} ({shown(folder)})" for source, folder in sorted(found.items()))
            raise RequestError(f"runs with {name} have different code of it: {listed}; pass the folders of one of them")


def _counted(value: str, folders: Sequence[Path]) -> str:
    """`3 (1 run, such as runs/…)`."""
    return f"{value} ({len(folders)} run{'s' if len(folders) > 1 else ''}, such as {shown(folders[0])})"


def refuse_differing_metrics(runs: Sequence[RunResult]) -> None:
    """Raises RequestError if runs of one recipe are compared by different metrics."""
    metrics: dict[tuple[str, str], dict[tuple[str, bool], Path]] = defaultdict(dict)
    for run in runs:
        metric = run.result.primary_metric
        metrics[run.result.task, run.result.recipe].setdefault((metric.name, metric.higher_is_better), run.folder)
    for (task, recipe), names in metrics.items():
        if len(names) > 1:
            listed = ", ".join(f"{name} ({shown(folder)})" for (name, _), folder in sorted(names.items()))
            raise RequestError(f"runs of {task} {recipe} have different primary metrics: {listed}")


def _text(value: Any) -> str:
    return json.dumps(value) if not isinstance(value, str) else value
