"""Runs with the settings that a study chose for each activation: a row of a report, next to the recipe's own settings.

pilot runs    are set aside: they were evaluated on training data, and are in no claim
tuned runs    share a row, in which the chosen settings read `tuned`
claims        are made on the tuned row of a recipe where there is one
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from golu_core.training.tasks.task import Metric

from .choices import Choice, base_of, field_of, read_choices
from .collect import Collection, LeftOut, RunResult
from .metrics import in_table_order, metric_of, paper_name
from .summary import Row
from .tables import Table, TableCell, TableRow

TUNED_VALUE = "tuned"
_FEWEST_PILOT_SEEDS = 6
"""By the simulation in docs/studies.md."""
_SET_ASIDE = "evaluated on held-out training data, not on the test set"


def is_pilot(run: RunResult) -> bool:
    """Whether a run was evaluated on training data that it held out."""
    return (run.settings or {}).get("holdout") == "validation"


def with_tuning(collection: Collection, folders: Sequence[Path]) -> Collection:
    """Return the same collection with pilot runs set aside, and tuned runs under common settings.

    A collection that consists of such runs alone stays as it is, with a sentence that says so.

    Args:
        collection: The runs.
        folders: The folders that were searched; tuned.json lies in the one that a study wrote, or in one above a run.

    Raises:
        RequestError: A tuned.json is damaged.
    """
    runs = [*collection.runs, *collection.diverged]
    pilots = [run for run in runs if is_pilot(run)]
    if len(pilots) == len(runs):
        sentence = "All runs were evaluated on held-out training data (--holdout validation), not on the test set."
        return dataclasses.replace(collection, sentences=[*collection.sentences, sentence])
    choices = [choice for folder in _study_folders(runs, folders) for choice in read_choices(folder)]
    shared: dict[str, Mapping[str, Any]] = {}
    named = {_key(choice): choice for choice in choices}
    left_out = [] if choices else [LeftOut(run.folder, _SET_ASIDE) for run in pilots]
    return dataclasses.replace(
        collection,
        runs=[again for run in collection.runs if not is_pilot(run) for again in _placed(run, named, shared)],
        diverged=[again for run in collection.diverged if not is_pilot(run) for again in _placed(run, named, shared)],
        left_out=[*collection.left_out, *left_out],
        pilots=pilots,
        choices=choices,
    )


def _study_folders(runs: Iterable[RunResult], folders: Iterable[Path]) -> list[Path]:
    """The folders that may hold a tuned.json: those that were searched, and those between them and a run."""
    tops = [folder.resolve() for folder in folders]
    found = dict.fromkeys(tops)
    for run in runs:
        for parent in run.folder.parents:
            if parent in found or not any(top in parent.parents for top in tops):
                break
            found[parent] = None
    return list(found)


def _key(choice: Choice) -> tuple[str, str, str, str]:
    return choice.task, choice.recipe, choice.activation, choice.base


def _placed(
    run: RunResult, choices: Mapping[tuple[str, str, str, str], Choice], shared: dict[str, Mapping[str, Any]]
) -> list[RunResult]:
    """A run as it is, under tuned settings, or both where the chosen settings are the recipe's own."""
    if run.settings is None:
        return [run]
    for flags in {tuple(choice.setting) for choice in choices.values()}:
        base = base_of(run.settings, flags)
        choice = choices.get((run.result.task, run.result.recipe, run.result.activation, base))
        if choice is None:
            continue
        setting = choice.setting_of(run.result.seed)
        if any(run.settings.get(field_of(flag)) != value for flag, value in setting.items()):
            continue
        settings = {**run.settings, **dict.fromkeys(map(field_of, flags), TUNED_VALUE)}
        one = shared.setdefault(json.dumps(settings, sort_keys=True), settings)  # rows are told apart by identity
        tuned = dataclasses.replace(run, settings=one)
        return [run, tuned] if choice.is_own(setting) else [tuned]
    return [run]


def is_tuned(row: Row) -> bool:
    """Whether a row has runs with settings that were chosen for each activation."""
    return TUNED_VALUE in (row.settings or {}).values()


def without_untuned(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that claims are made on: of a recipe with tuned rows, only these."""
    tuned = {(row.task, row.recipe) for row in rows if is_tuned(row)}
    return [row for row in rows if is_tuned(row) or (row.task, row.recipe) not in tuned]


def without_tuned(runs: Sequence[RunResult]) -> list[RunResult]:
    """Return the runs with settings of their own, in which alone configs can be mixed by mistake."""
    return [run for run in runs if TUNED_VALUE not in (run.settings or {}).values()]


# ------------------------------------------------------------------------------------------------------------- protocol


def tuning_sentences(collection: Collection) -> list[str]:
    """Return how settings were chosen, and each way in which this was unfair; nothing without tuned settings."""
    if not collection.choices:
        return []
    flags = in_order(flag for choice in collection.choices for flag in choice.setting)
    counts = sorted({len(choice.trials) for choice in collection.choices})
    seeds = sorted({len(choice.trials[0].values) for choice in collection.choices})
    budget = f"{_or_range(counts)} settings of {' and '.join(flags)} and {_or_range(seeds)} pilot seeds for each"
    problems = "; ".join(_problems(collection))
    fair = ", the same for all activations, with other seeds and on held-out training data, never on the test set"
    said = [f"Settings were tuned: {budget}{f'; but {problems}' if problems else fair}."]
    if seeds[0] < _FEWEST_PILOT_SEEDS:
        said.append(
            f"With fewer than {_FEWEST_PILOT_SEEDS} pilot seeds, reports claim differences that are not there too "
            "often: with 3, in 8% of reports instead of 5%."
        )
    return [*said, *_edges(collection)]


def in_order(names: Iterable[str]) -> list[str]:
    """Return distinct names in the order in which they come."""
    return list(dict.fromkeys(names))


def _or_range(counts: Sequence[int]) -> str:
    return str(counts[0]) if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"


def _problems(collection: Collection) -> Iterable[str]:
    """In what the budget of activations differs, or the comparison's seeds were used for choosing."""
    by_recipe: dict[tuple[str, str, str], list[Choice]] = defaultdict(list)
    for choice in collection.choices:
        by_recipe[choice.task, choice.recipe, choice.variant].append(choice)
    for (_, recipe, variant), group in by_recipe.items():
        name = f"{recipe} {variant}".rstrip()
        if len({json.dumps([trial.setting for trial in choice.trials]) for choice in group}) > 1:
            yield f"activations were tried at different settings in {name}"
        pilots = {int(seed) for choice in group for trial in choice.trials for seed in trial.values}
        if len({frozenset(trial.values) for choice in group for trial in choice.trials}) > 1:
            yield f"settings were tried with different seeds in {name}"
        runs = [run for run in collection.runs if run.result.recipe == recipe]
        if pilots & {run.result.seed for run in runs}:
            yield f"{name} was tuned on seeds that it is compared on"
        chosen = {choice.activation for choice in group}
        missing = in_table_order({run.result.activation for run in runs} - chosen)
        if missing:
            yield f"{', '.join(map(paper_name, missing))} was not tuned in {name}"


def _edges(collection: Collection) -> Iterable[str]:
    at_edge = [
        f"{paper_name(choice.activation)} in {choice.recipe} ({flag} {choice.setting[flag]})"
        for choice in collection.choices
        for flag in choice.at_edge
    ]
    if at_edge:
        yield f"At the edge of the range tried, so other values may be better: {', '.join(at_edge)}."


def choices_by_recipe(collection: Collection) -> dict[str, list[Choice]]:
    """Return the choices by recipe, with activations in the order of tables."""
    found: dict[str, dict[str, Choice]] = defaultdict(dict)
    for choice in collection.choices:
        found[f"{choice.recipe} {choice.variant}".rstrip()][choice.activation] = choice
    return {recipe: [group[name] for name in in_table_order(group)] for recipe, group in found.items()}


def tuning_table(collection: Collection) -> Table | None:
    """The chosen settings, and what they were chosen by; None without any."""
    columns = ("chosen", "median", "recipe's own", "median", "settings", "chosen by")
    table = Table("Settings chosen for each activation, on held-out data", ("recipe", "metric", "activation"), columns)
    for recipe, group in choices_by_recipe(collection).items():
        for place, choice in enumerate(group):
            metric = metric_of(choice.task, choice.metric, choice.higher_is_better)
            labels = (recipe, metric.label) if place == 0 else ("", "")
            texts = [
                text
                for trial in (choice.chosen, choice.trials[0])
                for text in (shown_setting(trial.setting), _median(trial.median(choice.higher_is_better), metric))
            ]
            agreeing = sum(choice.chosen_by(seed) is choice.chosen for seed in choice.pilot_seeds)
            texts += [str(len(choice.trials)), f"{agreeing} of {len(choice.pilot_seeds)} seeds"]
            cells = tuple(map(TableCell, texts))
            table.rows.append(TableRow((*labels, paper_name(choice.activation)), cells, minor=place > 0))
    table.notes.append(
        "Median: of the metric over the pilot seeds, on the part of the training data that was held out; a pilot run "
        "that failed is the worst. The best median is chosen, and of equal ones the recipe's own setting. The runs "
        "of the tuned row are not all trained with it: each seed is trained with what one pilot seed alone would "
        "choose, in turn, so that the luck of a choice is part of the spread over seeds."
    )
    return table if table.rows else None


def _median(value: float, metric: Metric) -> str:
    return f"{value:.{metric.decimals}f}" if math.isfinite(value) else "failed"


def shown_setting(setting: Mapping[str, Any]) -> str:
    """Return a setting as tables have it: `optim.lr 0.05`."""
    return ", ".join(f"{flag} {value}" for flag, value in setting.items())
