"""Runs that their own numbers ended, such as by a loss that is NaN: they have no result, and count all the same.

Their failure.json and config.json say what they are. By what metric they would have been compared, and on what data,
a finished run of the same recipe says. What else is unfinished, such as a run that was killed, stays left out: it says
nothing about the activation.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from golu_core.regular_files import regular_json
from golu_core.training.config.run_config import ACTIVATION_SOURCE
from golu_core.training.messages.errors import RequestError
from golu_core.training.runs.failures import Failure, read_failure
from golu_core.training.runs.results import Result
from golu_core.training.runs.run_files import CONFIG_FILE
from golu_core.training.storage.locks import is_claimed

from .collect import ANY_TASK, DATA, TOKENIZER, UNFINISHED, Collection, LeftOut, RunResult, generic_settings
from .collect import identity_rules as rules_of


def with_failed_runs(collection: Collection) -> Collection:
    """Return the same collection, in which runs that their own numbers ended count as failed runs.

    Raises:
        RequestError: A failure.json or the config.json next to it cannot be used.
    """
    diverged: dict[tuple[Any, ...], RunResult] = {}
    left_out: list[LeftOut] = []
    finished = {_key(run) for run in collection.runs}
    for left in collection.left_out:
        failure = read_failure(left.folder) if left.reason == UNFINISHED else None
        if failure is None:
            running = left.reason == UNFINISHED and is_claimed(left.folder)
            left_out.append(LeftOut(left.folder, "unfinished: it is being trained") if running else left)
            continue
        run = _failed_run(left.folder, failure, [*collection.runs, *diverged.values()])
        if run is None:
            reason = f"failed, and its recipe has no finished run that names the metric: {failure.reason}"
            left_out.append(LeftOut(left.folder, reason))
        elif _key(run) in finished or _key(run) in diverged:
            left_out.append(LeftOut(left.folder, f"failed, and is a duplicate of another run: {failure.reason}"))
        else:
            diverged[_key(run)] = run
    return Collection(collection.runs, left_out, list(diverged.values()))


def _key(run: RunResult) -> tuple[Any, ...]:
    return run.result.task, run.result.recipe, run.result.activation, run.result.seed, id(run.settings)


def _failed_run(folder: Path, failure: Failure, runs: Sequence[RunResult]) -> RunResult | None:
    """Return the run with NaN for each metric; None without another run of its recipe."""
    config = _config(folder)
    siblings = [run for run in runs if run.result.recipe == config["recipe"]]
    if not siblings:
        return None
    like = siblings[0].result
    result = dataclasses.replace(
        like,
        activation=config["activation"],
        seed=config["seed"],
        primary_metric=dataclasses.replace(like.primary_metric, value=math.nan),
        metrics=dict.fromkeys(like.metrics, math.nan),
        best={},
        steps=failure.step,
        train_seconds=0.0,  # not known
        eval_seconds=0.0,
        config_sha256="",
        files={},
    )
    return RunResult(result, folder, _settings(config, result, siblings), str(config.get(ACTIVATION_SOURCE, "")))


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    try:
        values = regular_json(path)
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(f"{path} cannot be read: {error}") from None
    kinds = {"recipe": str, "activation": str, "seed": int}
    if not isinstance(values, dict) or any(type(values.get(name)) is not kind for name, kind in kinds.items()):
        raise RequestError(f"{path} cannot be used: it does not name a recipe, an activation, and a seed")
    return {name: value for name, value in values.items() if name != "format"}


def _settings(config: Mapping[str, Any], result: Result, siblings: Sequence[RunResult]) -> Mapping[str, Any] | None:
    """Return the settings of the sibling that has the same ones, as one object; else the run's own, on its data."""
    known = {id(run.settings): run.settings for run in siblings if run.settings is not None}
    if not known:
        return None
    rules = rules_of(result.task, result.recipe) or [ANY_TASK]
    candidates = [generic_settings(rule.flat(config), result) for rule in rules]
    for settings in known.values():
        if any(_text(_without_data(settings)) == _text(candidate) for candidate in candidates):
            return settings
    first = next(iter(known.values()))
    return {**candidates[0], **{name: value for name, value in first.items() if name not in _without_data(first)}}


def _without_data(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != DATA and not name.endswith(TOKENIZER)}


def _text(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)
