"""Read the results below some folders. A run is identified by the content of its files, never by its path.

find       walk the folders, and sort run folders into finished and unfinished
read       parse each result.json and config.json; one error lists all files that cannot be read
join       attach a config's settings to each result, by its checksum or by a sibling's
select     of several copies of a run keep one, and list the others as left out
sort       order the runs by content, so that the order of the folders does not matter
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

from golu_core.activation.names.specs import folder_name
from golu_core.regular_files import regular_json
from golu_core.training.config.identity import IdentityRules, identity
from golu_core.training.config.run_config import ACTIVATION_SOURCE, RunConfig
from golu_core.training.messages.errors import RequestError
from golu_core.training.runs.failures import FAILURE_FILE
from golu_core.training.runs.results import RESULT_FILE, SCHEMA, Result, result_from_json
from golu_core.training.runs.run_files import CONFIG_FILE
from golu_core.training.tasks.task import installed_tasks, recipes_of, with_current_task

from .choices import DATA, TOKENIZER, Choice

_NOT_SEARCHED = {"checkpoints", "samples"}
"""Subfolders of a run with many files and no further runs."""
_NAMED = 10
"""Files listed in an error: enough to see a pattern, few enough for one screen."""
_LARGEST = 2.0**63
"""Larger numbers come from damaged files, and would overflow in NumPy."""
UNFINISHED = "unfinished: it has no result.json"


@dataclass(frozen=True)
class LeftOut:
    """A run that no table has, and why."""

    folder: Path
    reason: str

    def __str__(self) -> str:
        return f"{shown(self.folder)}: {self.reason}"


def shown(folder: Path) -> str:
    """A folder as people name it: from where they are, if it lies below."""
    try:
        return str(folder.relative_to(os.path.realpath(".")))
    except ValueError:
        return str(folder)


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        result: the content of its result.json.
        folder: The folder of the run.
        settings: identity fields of its config without activation and seed, flat, and what its data are; None where
            there is no config.json and no sibling's config fits its checksum.
        activation_source: The identity of its activation's code; empty for a built-in activation.
    """

    result: Result
    folder: Path
    settings: Mapping[str, Any] | None
    activation_source: str = ""

    @property
    def failed(self) -> bool:
        """Whether its metric is not a number."""
        return not math.isfinite(self.result.primary_metric.value)


@dataclass(frozen=True)
class Collection:
    """What was found, in an order that does not depend on that of the folders.

    Attributes:
        runs: With a result.
        left_out: In no table.
        diverged: Runs that their own numbers ended; see `failed_runs`. They have no result, and count as failed.
        sentences: How many runs of the study's plan have no result; see `planned`.
        pilots: Runs on training data that are held out, in no table of results; see `tuned`.
        choices: The settings that were chosen by them.
    """

    runs: list[RunResult]
    left_out: list[LeftOut] = field(default_factory=list)
    diverged: list[RunResult] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)
    pilots: list[RunResult] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)


def collect(folders: Sequence[Path]) -> Collection:
    """Reads all results below the folders.

    Raises:
        RequestError: a folder is missing, a result or config cannot be read, schemas are mixed, or there is no result.
    """
    for folder in folders:
        if not folder.exists():
            raise RequestError(f"the folder {folder} does not exist")
    found = dict(sorted(_run_folders(folders)))
    finished = [folder for folder, has_result in found.items() if has_result]
    unfinished = [Path(folder) for folder, has_result in found.items() if not has_result]
    left_out = [LeftOut(folder, UNFINISHED) for folder in unfinished]
    read = _read_all(finished)
    if not read:
        more = f"; {len(unfinished)} runs there are unfinished" if unfinished else ""
        raise RequestError(f"no result.json below {', '.join(map(str, folders))}{more}")
    runs, mismatched = _Settings().joined(read)
    runs, duplicates = _without_duplicates(runs)
    return Collection(_sorted(runs), [*left_out, *mismatched, *duplicates])


def _run_folders(folders: Iterable[Path]) -> Iterator[tuple[str, bool]]:
    """Folders of runs, and whether they are finished."""
    for top in folders:
        for place, subfolders, files in os.walk(os.path.realpath(top)):
            if CONFIG_FILE in files or RESULT_FILE in files:
                subfolders[:] = [name for name in subfolders if name not in _NOT_SEARCHED]
            if RESULT_FILE in files or RESULT_FILE in subfolders:  # a folder of that name is refused by name
                yield place, True
            elif CONFIG_FILE in files and ("metrics.jsonl" in files or FAILURE_FILE in files):
                yield place, False


def _read_all(folders: Sequence[str]) -> list[tuple[Path, Result, dict[str, Any] | None]]:
    """Results with their configs; one RequestError that names all files that cannot be read."""
    read, problems = [], []
    schemas: dict[str, str] = {}
    for folder in folders:
        path, config_path = f"{folder}/{RESULT_FILE}", f"{folder}/{CONFIG_FILE}"
        try:
            values = _json_object(path)
            schemas.setdefault(str(values.get("schema")), path)
            if values.get("schema") != SCHEMA:
                continue
            result = _checked(values, path)
            config = _json_object(config_path, required=False)
            read.append((Path(folder), result, config))
        except RequestError as error:
            problems.append(str(error))
    if problems:
        more = f"\n  and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        raise RequestError("files that cannot be used:\n  " + "\n  ".join(problems[:_NAMED]) + more)
    if schemas.keys() - {SCHEMA}:
        listed = ", ".join(f"{schema} ({path})" for schema, path in sorted(schemas.items()))
        what = "mixed schemas" if len(schemas) > 1 else "another schema"
        raise RequestError(f"{what}: {listed}; this tool reads {SCHEMA}")
    return read


@overload
def _json_object(path: str) -> dict[str, Any]: ...
@overload
def _json_object(path: str, required: bool) -> dict[str, Any] | None: ...
def _json_object(path: str, required: bool = True) -> dict[str, Any] | None:
    try:
        values = regular_json(path)
    except FileNotFoundError as error:
        if not required:
            return None
        raise RequestError(f"{path}: {error}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(f"{path}: {error}") from None
    if not isinstance(values, dict):
        raise RequestError(f"{path}: it holds no object")
    return values


def _checked(values: Mapping[str, Any], path: str) -> Result:
    """The result, with its fields checked as far as tables need them."""
    try:
        result = result_from_json(values)
    except (RequestError, RecursionError) as error:
        raise RequestError(f"{path}: {error}") from None
    metric = result.primary_metric
    numbers = {
        "primary_metric.value": metric.value,
        **{f"metrics.{name}": value for name, value in _mapping(result.metrics, "metrics", path).items()},
        "train_seconds": result.train_seconds,
        "eval_seconds": result.eval_seconds,
        "steps": result.steps,
        "seed": result.seed,
        "world_size": result.world_size,
    }
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise RequestError(f"{path}: {name} is {_short(value)}, which is not a number")
        if isinstance(value, int) and abs(value) > _LARGEST:
            raise RequestError(f"{path}: {name} has {value.bit_length()} bits, which no run can have")
    for name in ("train_seconds", "eval_seconds"):
        if not 0 <= numbers[name] < _LARGEST:
            raise RequestError(f"{path}: {name} is {numbers[name]}, which no run can have")
    for name in ("steps", "seed", "world_size"):
        if not isinstance(numbers[name], int) or numbers[name] < 0:
            raise RequestError(f"{path}: {name} is {numbers[name]}, which is not a count")
    for name in ("task", "recipe", "dataset", "model", "activation", "config_sha256"):
        if not isinstance(getattr(result, name), str):
            raise RequestError(f"{path}: {name} is {_short(getattr(result, name))}, which is not text")
    if not isinstance(metric.name, str) or not isinstance(metric.higher_is_better, bool):
        raise RequestError(f"{path}: primary_metric is {_short(metric)}")
    for name in ("environment", "data"):
        _mapping(getattr(result, name), name, path)
    return with_current_task(result)


def _mapping(value: Any, name: str, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RequestError(f"{path}: {name} is not an object")
    return value


def _short(value: Any) -> str:
    """A value for a message: a hostile file may hold anything."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # deep nesting, or more digits than Python writes
        return f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= 80 else f"{text[:77]}..."


class _Settings:
    """Joins results with the settings of their configs; equal settings are one object, however many runs have them."""

    def __init__(self) -> None:
        self._rules: dict[tuple[str, str], list[IdentityRules]] = {}
        self._shared: dict[str, dict[str, Any]] = {}

    def joined(
        self, read: Sequence[tuple[Path, Result, dict[str, Any] | None]]
    ) -> tuple[list[RunResult], list[LeftOut]]:
        """Runs with their settings, and those whose config.json is not the one that their result names."""
        runs, left_out, without = [], [], []
        known: dict[tuple[str, str], dict[int, Mapping[str, Any]]] = defaultdict(dict)
        for folder, result, config in read:
            if config is None:
                without.append(RunResult(result, folder, None))
                continue
            if "format" not in config:
                left_out.append(LeftOut(folder, "version 0.1 of golu wrote it"))
                continue
            settings, fits = self._settings(result, config)
            if not fits:
                left_out.append(LeftOut(folder, "its config.json is not the config that its result.json names"))
                continue
            known[result.task, result.recipe][id(settings)] = settings
            runs.append(RunResult(result, folder, settings, str(config.get(ACTIVATION_SOURCE, ""))))
        for run in without:
            candidates = [*known[run.result.task, run.result.recipe].values(), *self._of_recipe(run.result)]
            rules = self._identity_rules(run.result.task, run.result.recipe) or [ANY_TASK]
            wanted = run.result.config_sha256
            fitting = (s for s in candidates if any(_sha256_with(s, run.result, rule) == wanted for rule in rules))
            runs.append(dataclasses.replace(run, settings=next(fitting, None)))
        runs, strangers = _without_strangers(runs)
        return [self._with_data(run) for run in runs], [*left_out, *strangers]

    def _with_data(self, run: RunResult) -> RunResult:
        if run.settings is None:
            return run
        data = {DATA: str(run.result.data.get("fingerprint", "not known"))}
        return dataclasses.replace(run, settings=self._share({**run.settings, **data, **_tokenizers(run.result)}))

    def _settings(self, result: Result, config: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        values = {name: value for name, value in config.items() if name != "format"}
        rules = self._identity_rules(result.task, result.recipe)
        for rule in rules:
            flat = rule.flat(values)
            if rule.sha256(flat) == result.config_sha256:
                return self._share(generic_settings(flat, result)), True
        # which fields of an unknown task's config are placement is not known, so its checksum cannot be checked
        return self._share(generic_settings(ANY_TASK.flat(values), result)), not rules

    def _share(self, settings: dict[str, Any]) -> dict[str, Any]:
        return self._shared.setdefault(json.dumps(settings, sort_keys=True), settings)

    def _identity_rules(self, task: str, recipe: str) -> list[IdentityRules]:
        if (task, recipe) not in self._rules:
            self._rules[task, recipe] = identity_rules(task, recipe)
        return self._rules[task, recipe]

    def _of_recipe(self, result: Result) -> list[dict[str, Any]]:
        recipe = recipe_of(result)
        return [] if recipe is None else [self._share(recipe_settings(recipe))]


def _tokenizers(result: Result) -> dict[str, str]:
    """Which tokenizer each of sacreBLEU's metrics was taken with: scores by different ones cannot be compared."""
    signatures = result.other.get("signatures")
    signatures = signatures if isinstance(signatures, dict) else {}
    parts = {name: dict(part.partition(":")[::2] for part in str(text).split("|")) for name, text in signatures.items()}
    return {f"{name} {TOKENIZER}": found["tok"] for name, found in parts.items() if "tok" in found}


ANY_TASK = IdentityRules.of(RunConfig())
"""How fields count in configs of a task that no package has."""


def identity_rules(task: str, recipe: str) -> list[IdentityRules]:
    """How fields count: of the recipe, else of each kind of config; none for a task that no package has."""
    known = installed_tasks().get(task)
    recipes = {} if known is None else recipes_of(known)
    kinds = {type(example): example for example in recipes.values()}
    examples = [recipes[recipe]] if recipe in recipes else list(kinds.values())
    return [IdentityRules.of(example) for example in examples]


def recipe_of(result: Result) -> RunConfig | None:
    """The recipe that a result names, if the task's package is installed and has it."""
    task = installed_tasks().get(result.task)
    recipe: RunConfig | None = recipes_of(task).get(result.recipe) if task else None
    return recipe


def recipe_settings(recipe: RunConfig) -> dict[str, Any]:
    """A recipe's identity fields without activation and seed."""
    return {name: value for name, value in identity(recipe).items() if name not in ("activation", "seed")}


def generic_settings(flat: Mapping[str, Any], result: Result) -> dict[str, Any]:
    """Settings that siblings share: without activation and seed, also where a path names them, as a backbone's does."""
    own, any_run = _place(result), "/{activation}/seed{seed}"
    return {
        name: value.replace(own, any_run) if isinstance(value, str) else value
        for name, value in flat.items()
        if name not in ("activation", ACTIVATION_SOURCE, "seed")
    }


def _place(result: Result) -> str:
    """The end of a run's folder, which a path in its config may have."""
    return f"/{folder_name(result.activation)}/seed{result.seed}"


def _sha256_with(settings: Mapping[str, Any], result: Result, rules: IdentityRules) -> str:
    """Checksum that a config of these settings has for the result's activation and seed."""
    own, any_run = _place(result), "/{activation}/seed{seed}"
    flat = {name: v.replace(any_run, own) if isinstance(v, str) else v for name, v in settings.items()}
    return rules.sha256({**flat, "activation": result.activation, "seed": result.seed})


def _without_strangers(runs: Sequence[RunResult]) -> tuple[list[RunResult], list[LeftOut]]:
    """Leaves out runs of which nobody knows the config, where that of their siblings is known."""
    known = {(run.result.task, run.result.recipe) for run in runs if run.settings is not None}
    kept, left_out = [], []
    for run in runs:
        if run.settings is None and (run.result.task, run.result.recipe) in known:
            left_out.append(
                LeftOut(run.folder, "it has no config.json, and its checksum fits none of its siblings' configs")
            )
        else:
            kept.append(run)
    return kept, left_out


def _without_duplicates(runs: Sequence[RunResult]) -> tuple[list[RunResult], list[LeftOut]]:
    """One run of each config, activation and seed: chosen by a checksum of its content, so never by its metric."""
    same: dict[tuple[Any, ...], list[RunResult]] = defaultdict(list)
    for run in runs:
        result = run.result
        config = None if run.settings is None else result.config_sha256  # unknown configs count as one
        same[result.task, result.recipe, result.activation, result.seed, config].append(run)
    kept, left_out = [], []
    for group in same.values():
        first, *others = group if len(group) == 1 else sorted(group, key=lambda run: (_content(run), str(run.folder)))
        kept.append(first)
        for other in others:
            left_out.append(LeftOut(other.folder, f"duplicate of {shown(first.folder)}, {_difference(first, other)}"))
    return kept, left_out


def _content(run: RunResult) -> str:
    result = run.result
    return hashlib.sha256(json.dumps([result.metrics, result.train_seconds], sort_keys=True).encode()).hexdigest()


def _difference(first: RunResult, other: RunResult) -> str:
    metric, there = first.result.primary_metric, other.result.primary_metric
    if first.result.metrics == other.result.metrics:
        return "with the same metrics"
    return f"with other metrics: {metric.name} {there.value:.6g}, and {metric.value:.6g} in the one that is kept"


def _sorted(runs: Iterable[RunResult]) -> list[RunResult]:
    return sorted(
        runs,
        key=lambda run: (run.result.task, run.result.recipe, run.result.activation, run.result.seed, _content(run)),
    )
