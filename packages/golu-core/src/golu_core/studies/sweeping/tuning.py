"""Chooses settings for each activation with the same budget, on data and seeds that the comparison does not use.

    trials      the recipe's own setting, then the points of a Halton sequence: the same for each activation
    pilot runs  trials x pilot seeds with --holdout validation, in OUTPUT_DIR/tune/<setting>
    choice      the best trial of each pilot seed; of equal ones the recipe's own setting, then the earlier trial
    tuned.json  all choices and what they follow from, with a checksum
    tuned runs  the study's seeds, each with the choice of one pilot seed, in OUTPUT_DIR/tuned

Where the recipe's own setting is chosen, the study's runs with it are the tuned runs.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from golu_core.training.config.identity import identity
from golu_core.training.config.named_activations import NamedActivation
from golu_core.training.config.run_config import to_json
from golu_core.training.messages.errors import RequestError
from golu_core.training.runs.failures import FAILURE_FILE
from golu_core.training.runs.results import RESULT_FILE, read_result
from golu_core.training.storage.ownership import write_text
from golu_core.training.tasks.task import named_recipe

from ..reporting.choices import TUNED_FILE, Choice, Setting, Trial, base_of, choices_text, read_choices
from ..reporting.collect import generic_settings
from .flags import shown_value, words_of
from .study import Experiment, PlannedRun, Study, Tuning, runs_of, without_clashes

PILOTS, TUNED = "tune", "tuned"
_DIGITS = 3
Named = Callable[[str], NamedActivation]


@dataclass(frozen=True)
class _Pilots:
    """The pilot runs of one recipe, variant and activation, by trial."""

    experiment: Experiment
    variant: str
    activation: str
    trials: list[tuple[Setting, list[PlannedRun]]]


def pilot_runs(study: Study, named: Named) -> list[PlannedRun]:
    """Return the runs that settings are chosen by; none for a study without `[tune]`.

    Raises:
        RequestError: A flag is unknown, has no such value, or has no value in the recipe to compare with.
    """
    found: list[PlannedRun] = []
    for _, of_recipe in itertools.groupby(_pilots(study, named), key=lambda group: group.experiment):
        groups = list(of_recipe)
        for trials in zip(*(group.trials for group in groups), strict=True):  # in turn, as for the study's own runs
            found += [run for runs in zip(*(runs for _, runs in trials), strict=True) for run in runs]
    return without_clashes(found)


def _pilots(study: Study, named: Named) -> list[_Pilots]:
    groups: dict[tuple[str, str, str], _Pilots] = {}
    for experiment, recipe, tune in _tuned_recipes(study):
        single = dataclasses.replace(experiment, recipes=[recipe], seeds=tune.seeds)
        for setting in trials_of(tune, _own_setting(tune, recipe)):
            folder = f"{PILOTS}/" + ",".join(f"{name}={shown_value(value)}" for name, value in setting.items())
            words = ["--holdout", "validation", *_words(setting)]
            by_key: dict[tuple[str, str, str], list[PlannedRun]] = {}
            for run in runs_of(single, study, named, folder, words):
                variant = run.variant.removeprefix(folder.replace("/", "-")).removeprefix("-")
                by_key.setdefault((run.config.recipe, variant, run.config.activation), []).append(run)
            for key, runs in by_key.items():
                groups.setdefault(key, _Pilots(single, key[1], key[2], [])).trials.append((setting, runs))
    return list(groups.values())


def _tuned_recipes(study: Study) -> Iterator[tuple[Experiment, str, Tuning]]:
    for experiment in study.experiment:
        tune = experiment.tune or study.tune
        for recipe in experiment.recipes:
            if tune is not None:
                yield experiment, recipe, tune


def _words(setting: Mapping[str, Any]) -> list[str]:
    return [word for name, value in setting.items() for word in words_of(name, value)]


def _own_setting(tune: Tuning, recipe: str) -> Setting:
    """The recipe's own values of the flags to tune; RequestError for a flag that it does not have."""
    _, config = named_recipe(recipe)
    own = {}
    for name in (*tune.log_uniform, *tune.values):
        value: Any = config
        for part in name.replace("-", "_").split("."):
            if not hasattr(value, part):
                raise RequestError(f"tune: {recipe} has no {name}")
            value = getattr(value, part)
        if name in tune.log_uniform and (not isinstance(value, (int, float)) or isinstance(value, bool)):
            raise RequestError(
                f"tune: {name} of {recipe} is {value!r}, which no range of numbers fits: list its values"
            )
        own[name] = to_json(value)
    return own


def trials_of(tune: Tuning, own: Setting) -> list[Setting]:
    """Return the settings to try, the recipe's own first.

    Ranges are covered by a Halton sequence, whose points are spread evenly however many there are (SciPy); values are
    rounded to three digits. Without a range, all combinations of the values are tried.

    Args:
        tune: The ranges and values.
        own: The recipe's own values.
    """
    if not tune.log_uniform:
        found = [dict(zip(tune.values, values, strict=True)) for values in itertools.product(*tune.values.values())]
    else:
        from scipy.stats import qmc

        names = [*tune.log_uniform, *tune.values]
        points = qmc.Halton(len(names), scramble=False).random(tune.trials + 1)[1:]  # the first is a corner
        found = [{name: _at(tune, name, u) for name, u in zip(names, point, strict=True)} for point in points.tolist()]
    distinct = {json.dumps(setting): setting for setting in [own, *found]}
    return list(distinct.values())


def _at(tune: Tuning, name: str, u: float) -> Any:
    """The value of a flag at a number in [0, 1)."""
    if name in tune.values:
        return tune.values[name][int(u * len(tune.values[name]))]
    low, high = tune.log_uniform[name]
    return float(f"{low * (high / low) ** u:.{_DIGITS}g}")


# -------------------------------------------------------------------------------------------------------------- choices


def has_diverged(run: PlannedRun) -> bool:
    """Whether a pilot run's own numbers ended it, which counts against its setting."""
    return run.is_pilot and (run.folder / FAILURE_FILE).exists()


def chosen_settings(study: Study, named: Named) -> list[Choice] | None:
    """Choose a setting for each activation and write tuned.json; None while pilot runs have not ended.

    Raises:
        RequestError: tuned.json says otherwise, so that pilot runs were changed after the tuned runs began.
    """
    groups = _pilots(study, named)
    runs = [run for group in groups for _, several in group.trials for run in several]
    if not all((run.folder / RESULT_FILE).exists() or has_diverged(run) for run in runs):
        return None
    choices = [_choice(group) for group in groups]
    path = study.output_dir / TUNED_FILE
    before = read_choices(study.output_dir)
    if not before:
        write_text(path, choices_text(choices))
    elif before != choices:
        raise RequestError(
            f"{path} holds other choices than the pilot runs now lead to: the study's [tune] or its pilot runs were "
            f"changed. Use another output_dir, or remove {path} and {study.output_dir / TUNED}"
        )
    return choices


def _choice(group: _Pilots) -> Choice:
    trials, finished = [], None
    for setting, runs in group.trials:
        values: dict[str, float | None] = {}
        for run in runs:
            value = None
            if (run.folder / RESULT_FILE).exists():
                finished = read_result(run.folder / RESULT_FILE)
                value = finished.primary_metric.value
                value = value if math.isfinite(value) else None
                settings = generic_settings(identity(run.config), finished)
            values[str(run.config.seed)] = value
        trials.append(Trial(setting, values))
    run = group.trials[0][1][0]
    if finished is None:
        raise RequestError(
            f"every pilot run of {run.config.recipe} with {group.activation} failed: choose other ranges for tune"
        )
    metric = finished.primary_metric
    return Choice(
        task=run.task.name,
        recipe=run.config.recipe,
        variant=group.variant,
        activation=group.activation,
        metric=metric.name,
        higher_is_better=metric.higher_is_better,
        trials=tuple(trials),
        base=base_of(settings, trials[0].setting),
    )


def tuned_runs(study: Study, named: Named, choices: Sequence[Choice]) -> list[PlannedRun]:
    """Return the study's runs with the chosen settings, where these are not the recipe's own."""
    planned: list[PlannedRun] = []
    for experiment, recipe, _ in _tuned_recipes(study):
        _, config = named_recipe(recipe)
        of_recipe = [choice for choice in choices if choice.recipe == config.recipe]
        seeds = study.seeds if experiment.seeds is None else experiment.seeds
        for seed, text in itertools.product(seeds, experiment.activations or study.activations):
            activation = named(text).text
            single = dataclasses.replace(experiment, recipes=[recipe], activations=[text], seeds=[seed])
            for choice in of_recipe:
                setting = choice.setting_of(seed)
                if choice.activation == activation and not choice.is_own(setting):
                    wanted = "-".join(filter(None, (TUNED, choice.variant)))
                    runs = runs_of(single, study, named, TUNED, _words(setting))
                    planned += [run for run in runs if run.variant == wanted]
    return without_clashes(planned)
