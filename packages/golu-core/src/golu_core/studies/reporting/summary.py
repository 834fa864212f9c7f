"""Runs of one recipe and config side by side: means over seeds, published values, relative times."""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from golu_core.training.config.run_config import RunConfig
from golu_core.training.tasks.task import Metric, installed_tasks, recipes_of

from .collect import DATA, TOKENIZER, RunResult, recipe_of, recipe_settings
from .metrics import in_table_order, metric_of, secondary_metrics
from .mixtures import differing_settings


@dataclass(frozen=True)
class Cell:
    """One activation in one row.

    Attributes:
        values: The values of the runs that did not fail, by seed.
        failed: seeds whose metric is not a number.
        mean: NaN where all failed.
        std: sample standard deviation; NaN for one run.
        published: Mean and, where it is printed, ±, as published for runs with the same settings; None if there are
            none.
    """

    values: Mapping[int, float]
    failed: tuple[int, ...]
    published: tuple[float, float | None] | None = None

    @property
    def n(self) -> int:
        """Runs that did not fail."""
        return len(self.values)

    @property
    def runs(self) -> int:
        """All runs, failed ones among them."""
        return self.n + len(self.failed)

    @property
    def mean(self) -> float:
        return math.fsum(self.values.values()) / self.n if self.n else math.nan

    @property
    def std(self) -> float:
        return statistics.stdev(self.values.values()) if self.n > 1 else math.nan

    @property
    def standard_error(self) -> float:
        """Standard deviation over the root of n; NaN for one run."""
        return self.std / math.sqrt(self.n) if self.n > 1 else math.nan

    @property
    def difference(self) -> float:
        """Mean less the published mean; NaN where the paper prints none."""
        return self.mean - self.published[0] if self.published else math.nan


@dataclass(frozen=True)
class Row:
    """A metric of one recipe and config, for each activation.

    Attributes:
        task, recipe: The task and the recipe of its runs.
        model, dataset: The names in the paper, or else in the results.
        family: The family of recipes that are not independent evidence: related architectures on one data set.
        variant: the settings in which the recipe's configs differ, where they are mixed.
        overrides: settings that are not the recipe's: name, the recipe's value, the runs' value.
        metric, metric_name: The metric compared, and its name in tables.
        is_primary: whether runs are compared by it, rather than shown beneath.
        cells: The cells by activation, in the order of tables.
        default_activation: The architecture's default activation; None if it is unknown.
        runs: The runs of all activations.
        settings: The settings of the runs; None if they are unknown.
    """

    task: str
    recipe: str
    model: str
    dataset: str
    family: str
    variant: str
    overrides: tuple[tuple[str, Any, Any], ...]
    metric: Metric
    metric_name: str
    is_primary: bool
    cells: Mapping[str, Cell]
    default_activation: str | None
    runs: tuple[RunResult, ...]
    settings: Mapping[str, Any] | None

    @property
    def name(self) -> str:
        """The recipe, and what of it was varied."""
        return f"{self.recipe} ({self.variant})" if self.variant else self.recipe

    @property
    def best(self) -> frozenset[str]:
        """Activations with the most merit; more than one where it is equal, none where one alone has a mean."""
        found = {name: self.merit(name) for name in self.activations if self.cells[name].n}
        if len(found) < 2:
            return frozenset()
        best = max(found.values())
        return frozenset(name for name, merit in found.items() if merit == best)

    def merit(self, activation: str) -> tuple[float, float]:
        """What decides of two activations, the larger one being better: fewer failures first, and then the mean."""
        cell = self.cells[activation]
        mean = cell.mean if self.metric.higher_is_better else -cell.mean
        return -len(cell.failed) / cell.runs, mean if cell.n else -math.inf

    @property
    def collapse_bound(self) -> float | None:
        """The value beyond which a run has collapsed; None for the metric of a task that is not installed.

        It is half way from the best activation's median to chance: 100/classes for top-1, 500/classes for top-5, and 0
        for other metrics of which more is better. Chance is not known where less is better; the bound is twice the
        median there.
        """
        medians = [statistics.median(cell.values.values()) for cell in self.cells.values() if cell.n]
        if not medians or self.task not in installed_tasks():
            return None
        if not self.metric.higher_is_better:
            return 2 * min(medians) if min(medians) > 0 else None
        guesses = {"top1": 100.0, "top5": 500.0}.get(self.metric_name, 0.0)
        classes = self.runs[0].result.data.get("classes")
        chance = guesses / classes if isinstance(classes, int) and classes > 0 else 0.0
        return (max(medians) + min(chance, 100.0)) / 2 if max(medians) > chance else None

    def collapsed(self, activation: str) -> frozenset[int]:
        """The seeds at which an activation's run failed, or ended beyond `collapse_bound`."""
        cell, bound = self.cells[activation], self.collapse_bound
        if bound is None:
            return frozenset(cell.failed)
        higher = self.metric.higher_is_better
        beyond = (seed for seed, value in cell.values.items() if (value < bound if higher else value > bound))
        return frozenset([*cell.failed, *beyond])

    @property
    def activations(self) -> list[str]:
        """Those that take part in comparisons: with at least half as many runs as the one with the most."""
        most = max(cell.runs for cell in self.cells.values())
        return [name for name, cell in self.cells.items() if 2 * cell.runs >= most]


def rows_of(runs: Sequence[RunResult]) -> list[Row]:
    """The rows of all tables: by task and recipe, the primary metric first."""
    differing = differing_settings(runs)
    groups: dict[tuple[str, str], dict[int, list[RunResult]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        groups[run.result.task, run.result.recipe][id(run.settings)].append(run)
    rows: list[Row] = []
    for recipe, by_settings in sorted(groups.items(), key=lambda item: _place_among_recipes(*item[0])):
        fields = list(differing.get(recipe, {}))
        for group in sorted(by_settings.values(), key=lambda group: _variant(group, fields)):
            rows += _rows_of_group(sorted(group, key=_order), _variant(group, fields))
    return rows


def family_of(model: str, dataset: str) -> str:
    """What recipes share that are no independent evidence: a line of architectures (`ResNet` of `ResNet-18`, `ViT` of
    `ViT-B/32`, `GPT` of `GPT2-S`) and the data."""
    line = re.split(r"[-/,(0-9]", model, maxsplit=1)[0].strip()
    return f"{line} on {dataset}"


def _place_among_recipes(task: str, recipe: str) -> tuple[Any, ...]:
    """Tasks and recipes in the order of the packages, and then those that are not known."""
    known = installed_tasks()
    tasks, recipes = list(known), list(recipes_of(known[task])) if task in known else []
    return (
        tasks.index(task) if task in tasks else len(tasks),
        task,
        recipes.index(recipe) if recipe in recipes else len(recipes),
        recipe,
    )


def _order(run: RunResult) -> tuple[str, int]:
    return run.result.activation, run.result.seed


def _variant(group: Sequence[RunResult], fields: Sequence[str]) -> str:
    settings = group[0].settings or {}
    return ", ".join(f"{name}={settings.get(name)}" for name in fields)


def _rows_of_group(group: Sequence[RunResult], variant: str) -> list[Row]:
    first = group[0].result
    recipe = recipe_of(first)
    paper = None if recipe is None else recipe.paper
    primary = first.primary_metric
    names = [primary.name]
    names += [
        name
        for name in secondary_metrics(first.task)
        if name != primary.name and all(name in run.result.metrics for run in group)
    ]
    settings = group[0].settings
    on_own_data = all(_is_on_recipes_data(run, recipe) for run in group)
    model = first.model if paper is None else paper.model
    dataset = paper.dataset if paper is not None and on_own_data else first.dataset
    return [
        Row(
            task=first.task,
            recipe=first.recipe,
            model=model,
            dataset=dataset,
            family=family_of(model, dataset),
            variant=variant,
            overrides=overrides(recipe, settings),
            metric=metric_of(first.task, name, primary.higher_is_better),
            metric_name=name,
            is_primary=name == primary.name,
            cells=_cells(group, name, _comparable(recipe, settings).get(name, {}) if on_own_data else {}),
            default_activation=None if recipe is None else recipe.default_activation,
            runs=tuple(group),
            settings=settings,
        )
        for name in names
    ]


def _is_on_recipes_data(run: RunResult, recipe: RunConfig | None) -> bool:
    """Whether a run used the data of its recipe, beside which alone published numbers stand."""
    data = getattr(recipe, "data", None)
    return data is not None and run.result.dataset == data.name and run.result.data.get("as_published") is not False


def _comparable(recipe: RunConfig | None, settings: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return the published results by metric, if runs have the settings with which these were made."""
    if recipe is None or recipe.paper is None or settings is None:
        return {}
    return recipe.paper.published_with({name: found for name, _, found in overrides(recipe, settings)})


def _cells(
    group: Sequence[RunResult], name: str, published: Mapping[str, tuple[float, float | None]]
) -> dict[str, Cell]:
    by_activation: dict[str, list[RunResult]] = defaultdict(list)
    for run in group:
        by_activation[run.result.activation].append(run)
    cells = {}
    for activation in in_table_order(by_activation):
        values = {run.result.seed: _value(run, name) for run in by_activation[activation]}
        cells[activation] = Cell(
            values={seed: value for seed, value in values.items() if math.isfinite(value)},
            failed=tuple(seed for seed, value in values.items() if not math.isfinite(value)),
            published=published.get(activation),
        )
    return cells


def _value(run: RunResult, name: str) -> float:
    metric = run.result.primary_metric
    return metric.value if name == metric.name else run.result.metrics[name]


def overrides(recipe: RunConfig | None, settings: Mapping[str, Any] | None) -> tuple[tuple[str, Any, Any], ...]:
    """Settings of runs that are not those of their recipe: name, the recipe's value, the runs' value."""
    if recipe is None or settings is None:
        return ()
    expected = recipe_settings(recipe)
    return tuple(
        (name, expected.get(name), settings.get(name))
        for name in sorted({*expected, *settings} - {DATA})
        if not name.endswith(TOKENIZER)
        if expected.get(name) != settings.get(name)
    )


# ------------------------------------------------------------------------------------------------------ relative times


@dataclass(frozen=True)
class RelativeTime:
    """Time of an activation's runs, as a multiple of that of the architecture's own activation.

    Attributes:
        training: The seconds of an optimizer step.
        evaluation: The seconds of all evaluations of a run.
    """

    training: float
    evaluation: float


def relative_times(row: Row) -> tuple[dict[str, RelativeTime], str]:
    """Relative times by activation, and why there are none.

    Only runs on the same hardware are compared, with as many processes and steps.
    """
    if row.default_activation is None:
        return {}, "the architecture's own activation is not known"
    places = Counter(_place(run) for run in row.runs if not run.failed)
    if len(places) > 1:
        return {}, f"its runs were on {len(places)} different machines or lengths"
    seconds: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for run in row.runs:
        if not run.failed and run.result.steps:
            seconds[run.result.activation].append(
                (run.result.train_seconds / run.result.steps, run.result.eval_seconds)
            )
    own = _mean_times(seconds.get(row.default_activation, ()))
    if own is None:
        return {}, f"there is no run of {row.default_activation}, the architecture's own activation"
    found = {}
    for activation in in_table_order(seconds):
        times = _mean_times(seconds[activation])
        if times is not None:
            found[activation] = RelativeTime(times[0] / own[0], times[1] / own[1])
    return found, ""


def _place(run: RunResult) -> tuple[Any, ...]:
    result = run.result
    return (*hardware(run), result.world_size, result.steps)


def hardware(run: RunResult) -> tuple[str, str]:
    """The device and the processor of a run."""
    environment = run.result.environment
    return str(environment.get("device", "unknown device")), str(environment.get("host_cpu", "unknown processor"))


def _mean_times(times: Iterable[tuple[float, float]]) -> tuple[float, float] | None:
    """Mean seconds of training and evaluation; None where one of them was not measured."""
    listed = list(times)
    if not listed:
        return None
    training, evaluation = (statistics.fmean(column) for column in zip(*listed, strict=True))
    return (training, evaluation) if training > 0 and evaluation > 0 else None


def geometric_mean(values: Iterable[float]) -> float:
    """NaN for no values."""
    listed = list(values)
    return statistics.geometric_mean(listed) if listed else math.nan
