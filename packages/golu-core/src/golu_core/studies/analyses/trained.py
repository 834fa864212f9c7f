"""Finished runs for the analyses that look into trained networks: collected, grouped, and each with its analyzed."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from rich.progress import track

from golu_core.training.messages.errors import RequestError
from golu_core.training.tasks.analysis_model import AnalysisModel, make_analysis_model
from golu_core.training.tasks.task import Task, installed_tasks

from ..reporting.collect import RunResult, collect
from ..reporting.formats import console
from ..reporting.metrics import in_table_order
from ..reporting.mixtures import refuse_mixed

Found = TypeVar("Found")


@dataclass(frozen=True)
class AnalyzedRun(Generic[Found]):
    """What was found in one run.

    Attributes:
        run: its result and folder.
        found: The result of the analysis.
    """

    run: RunResult
    found: Found


@dataclass(frozen=True)
class RecipeRuns(Generic[Found]):
    """What was found in the runs of one recipe.

    Attributes:
        task, recipe: The task and the recipe of the runs.
        by_activation: The runs by activation, in the order of tables, and by seed.
    """

    task: str
    recipe: str
    by_activation: Mapping[str, Sequence[AnalyzedRun[Found]]]


@dataclass(frozen=True)
class TrainedRuns(Generic[Found]):
    """What was found in all runs.

    Attributes:
        recipes: The recipes of the runs.
        left_out: a sentence on runs that no table has; empty if there are none.
    """

    recipes: Sequence[RecipeRuns[Found]]
    left_out: str

    @property
    def seen(self) -> list[AnalyzedRun[Found]]:
        """What was found in each run."""
        return [one for recipe in self.recipes for several in recipe.by_activation.values() for one in several]

    def records(self, numbers: Callable[[AnalyzedRun[Found]], Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Each run as a JSON object: which it is, and the numbers that a function gives of it."""
        records = []
        for one in self.seen:
            result = one.run.result
            which = {name: getattr(result, name) for name in ("task", "recipe", "activation", "seed")}
            records.append({**which, **numbers(one)})
        return records


def look_into(
    folders: Sequence[Path], samples: int, data_dir: Path | None, what: str, look: Callable[[AnalysisModel], Found]
) -> TrainedRuns[Found]:
    """What an analysis finds in each finished run below some folders, with a progress bar.

    Args:
        samples: test samples that each network sees.
        data_dir: folder that holds the data sets; None takes that of each run.
        what: the analysis does, for the progress bar.
        look: takes Return the analysis model of a run.

    Raises:
        RequestError: no run is finished, a run of a recipe has other settings than another, a run is damaged, its data
            are missing, or its task offers no analysis model.
    """
    if not folders:
        raise RequestError("name the folders of finished runs")
    collection = collect(folders)
    refuse_mixed(collection.runs)
    groups: dict[tuple[str, str], dict[str, list[AnalyzedRun[Found]]]] = defaultdict(lambda: defaultdict(list))
    output = console()
    for run in track(collection.runs, what, console=output, transient=True, disable=not output.is_terminal):
        analyzed = make_analysis_model(_task(run), run.folder, samples, data_dir)
        group = groups[run.result.task, run.result.recipe][run.result.activation]
        group.append(AnalyzedRun(run, look(analyzed)))
    recipes = [
        RecipeRuns(task, recipe, {name: by_activation[name] for name in in_table_order(by_activation)})
        for (task, recipe), by_activation in sorted(groups.items())
    ]
    left_out = "Left out: " + "; ".join(map(str, collection.left_out)) if collection.left_out else ""
    return TrainedRuns(recipes, left_out)


def _task(run: RunResult) -> Task[Any]:
    task = installed_tasks().get(run.result.task)
    if task is None:
        raise RequestError(f"{run.folder} is a run of the task {run.result.task}, whose package is not installed")
    return task


def mean_and_half_width(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean over seeds, and from three seeds on half the width of its 95 % interval by Student's t."""
    mean = statistics.fmean(values)
    if len(values) < 3:
        return mean, None
    from scipy.stats import t

    return mean, float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5


def with_interval(values: Sequence[float], digits: int = 4) -> str:
    """A cell: the mean over seeds, with its interval where there are three seeds."""
    mean, half = mean_and_half_width(values)
    text = f"{mean:.{digits}g}" + ("" if half is None else f" ± {half:.2g}")
    return text.replace("-", "−")


INTERVALS = (
    "Mean over seeds; from three seeds on with half the width of its 95 % interval by Student's t, each by itself, "
    "corrected for nothing."
)
"""What stands below every table of cells by `with_interval`."""
