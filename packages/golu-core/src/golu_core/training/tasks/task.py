"""A task, such as image classification: the description that a package registers as an entry point."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Generic

from ...regular_files import regular_json
from ..config.run_config import Config, require_tracker
from ..messages.errors import RequestError
from ..runs.results import RESULT_FILE, Result
from ..runs.run_files import read_config, read_recipe, run_folder

GROUP = "golu.tasks"
_RECIPES_GROUP = "golu.recipes"


@dataclass(frozen=True)
class Metric:
    """A metric of result.json and its format in tables.

    Attributes:
        label: The heading in tables, with the unit.
        decimals: The number of decimals in tables, as in the paper.
        higher_is_better: Whether a higher value is better.
        secondary: Whether to show it below the metric by which runs are compared, where results have it.

    Examples:
        >>> from golu_core.training import Metric
        >>> {"accuracy": Metric("accuracy (%)", 2, higher_is_better=True)}["accuracy"].label
        'accuracy (%)'
    """

    label: str
    decimals: int
    higher_is_better: bool
    secondary: bool = False


@dataclass(frozen=True)
class Command:
    """A subcommand of a task, in addition to `recipes`, `train` and `evaluate`.

    Attributes:
        help: One line for `--help`.
        run: The function of the arguments after the subcommand's name; or its object name, `package.module:name`.
        usage: The arguments as `--help` prints them after the name. Those of a command on a run folder begin with
            `RUN_DIR`.
        flags: The dataclass of the flags that `--help` lists, or its object name; None if there are none.

    Examples:
        >>> from golu_core.training import Command
        >>> Command("print predictions for a table", "my_tabular.predict:predict_command", "RUN_DIR TABLE").usage
        'RUN_DIR TABLE'
    """

    help: str
    run: str | Callable[..., None]
    usage: str = ""
    flags: str | type | None = None

    @property
    def takes_run(self) -> bool:
        """Whether the first argument is a run folder."""
        return self.usage.split(" ")[0] == "RUN_DIR"


@dataclass(frozen=True)
class Task(Generic[Config]):
    """The object that a package registers under the entry point `golu.tasks`.

    Functions are named as `package.module:name`, and are imported when they are called.

    Attributes:
        name: The task's folder below OUTPUT_DIR and its name in result.json, such as `vision`.
        title: The title of its tables.
        package: The import package, such as `golu_vision`; the console script is then named `golu-vision`.
        recipes: The recipes by name.
        metrics: The metrics by their names in result.json, at least the one by which runs are compared.
        unit: The unit of throughput, such as `images/s`.
        train: The function that trains a config; a dry run ends in `Run.prepare`.
        evaluate: The function of a run folder and flags that prints the test metrics of the final weights.
        evaluation_flags: The dataclass of these flags.
        outputs: Patterns of the files that the task itself writes into a run folder, such as `samples/*.png`.
        commands: The task's own subcommands by name.
        order: The position of its tables among those of other tasks.
        analysis_model: The `MakeAnalysisModel` that `golu-core analyze` uses; None if runs cannot be analyzed.
        timing_model: The `MakeTimingModel` that `golu-core analyze times` uses; None if networks cannot be timed.
        own_data: For each recipe that adapts to the user's data, the function that adapts it.
        distribution: The distribution that holds the package, if its name is not that of the console script.
        former_name: The name of the task that had these recipes in the version before. Their runs are read as runs of
            this task, and continue in their folders.
        has_holdout: Whether the task evaluates on training data that it holds out where `config.holdout` is
            `validation`; otherwise the flag is refused.
        moved: Commands that another program has since this version, with its command, such as `golu-lm prepare`.

    Examples:
        >>> from golu_core.training import EpochConfig, Metric, Task
        >>> recipes, metrics = {"tumors": EpochConfig(recipe="tumors")}, {"accuracy": Metric("accuracy (%)", 2, True)}
        >>> train, evaluate = "my_tabular.train:train", "my_tabular.train:evaluate_run"
        >>> Task("tabular", "Tables of numbers", "my_tabular", recipes, metrics, "rows/s", train, evaluate).program
        'my-tabular'
    """

    name: str
    title: str
    package: str
    recipes: Mapping[str, Config]
    metrics: Mapping[str, Metric]
    unit: str
    train: str
    evaluate: str
    evaluation_flags: str = "golu_core.training.runs.finished:BatchEvaluationFlags"
    outputs: tuple[str, ...] = ()
    commands: Mapping[str, Command] = field(default_factory=dict)
    order: int = 100
    analysis_model: str | None = None
    timing_model: str | None = None
    own_data: Mapping[str, str] = field(default_factory=dict)
    distribution: str = ""
    former_name: str | None = None
    has_holdout: bool = False
    moved: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "distribution", self.distribution or self.program)

    @property
    def program(self) -> str:
        """The console script."""
        return self.package.replace("_", "-")

    def check_request(self, config: Config) -> None:
        """Raise RequestError if training needs a package that is missing, or a holdout that the task does not have."""
        require_tracker(config)
        if config.holdout != "test" and not self.has_holdout:
            raise RequestError(
                f"{self.program} cannot hold out training data: leave out --holdout, or set has_holdout in its Task "
                f"once its data functions split by config.holdout"
            )

    def run_folder(self, config: Config) -> Path:
        """The folder of a config's run. A run that began below the task's former name stays there."""
        folder = run_folder(config, self.name)
        if self.former_name is None or folder.exists():
            return folder
        former = run_folder(config, self.former_name)
        with suppress(RequestError):
            read_config(former, type(config))
            return former
        return folder


def resolved(reference: Any) -> Any:
    """What a reference such as `golu_vision.train:train` names; anything else as it is."""
    return pkgutil.resolve_name(reference) if isinstance(reference, str) else reference


@cache
def installed_tasks() -> dict[str, Task[Any]]:
    """Return the tasks of all installed packages, by name.

    Raises:
        RequestError: Two packages have tasks of the same name, or an entry point cannot be loaded.
    """
    found: dict[str, Task[Any]] = {}
    for entry in entry_points(group=GROUP):
        try:
            task = entry.load()
        except Exception as error:  # another package's code
            raise RequestError(f"the task {entry.name} ({entry.value}) cannot be loaded: {error}") from error
        if not isinstance(task, Task):
            raise RequestError(f"the task {entry.name} ({entry.value}) is not a golu_core.training.tasks.task.Task")
        if found.setdefault(task.name, task) is not task:
            raise RequestError(f"{found[task.name].package} and {task.package} both have a task named {task.name}")
    return dict(sorted(found.items(), key=lambda item: (item[1].order, item[0])))


def recipes_of(task: Task[Config]) -> Mapping[str, Config]:
    """Return a task's recipes by name: built-in recipes, then those that packages register under `golu.recipes.<task>`.

    Raises:
        RequestError: A registered recipe cannot be loaded, or is not a config of the task.
    """
    return {**_registered_recipes(task.name), **task.recipes}


@cache
def _registered_recipes(task_name: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for entry in entry_points(group=f"{_RECIPES_GROUP}.{task_name}"):
        try:
            recipe = entry.load()
        except Exception as error:  # another package's code
            raise RequestError(f"the recipe {entry.name} ({entry.value}) cannot be loaded: {error}") from error
        if _task_of_config(recipe).name != task_name:
            raise RequestError(
                f"the recipe {entry.name} ({entry.value}) is not one of {task_name}: "
                f"register it under {_RECIPES_GROUP}.{_task_of_config(recipe).name}"
            )
        found[entry.name] = replace(recipe, recipe=entry.name)
    return found


def _task_of_config(recipe: Any) -> Task[Any]:
    """The task whose config a recipe is; RequestError if it is none's."""
    for task in installed_tasks().values():
        if type(recipe) in {type(known) for known in task.recipes.values()}:
            return task
    kinds = {type(known).__name__ for task in installed_tasks().values() for known in task.recipes.values()}
    raise RequestError(f"a {type(recipe).__name__} is not a recipe: it must be a {' or a '.join(sorted(kinds))}")


def named_recipe(text: str) -> tuple[Task[Any], Any]:
    """Return the recipe with a name, and its task.

    Args:
        text: The name of a recipe, or an object to import: `./file.py:name` or `package.module:name`. An imported
            recipe is named after the part that follows the colon. Only its fields count, not the rest of the file.

    Raises:
        RequestError: No installed package has the recipe, or the imported object is not a recipe.
    """
    if ":" in text:
        from golu_core.activation.names.loading import named_object

        try:
            name, found = named_object(text)
        except ValueError as error:
            raise RequestError(str(error)) from None
        task = _task_of_config(found)
        if name in recipes_of(task):
            raise RequestError(f"{text}: {name} is a recipe of {task.program} already: rename yours")
        return task, replace(found, recipe=name)
    for task in installed_tasks().values():
        if text in recipes_of(task):
            return task, recipes_of(task)[text]
    known = [name for task in installed_tasks().values() for name in recipes_of(task)]
    raise RequestError(f"unknown recipe {text!r}; the installed packages have {', '.join(known)}")


def task_of(recipe: str) -> Task[Any]:
    """The task that a recipe belongs to; RequestError as of `named_recipe`."""
    return named_recipe(recipe)[0]


def with_current_task(result: Result) -> Result:
    """A result with the name that its task has today."""
    return replace(result, task=_current_name(result.task, result.primary_metric.name))


def _current_name(name: str, metric: str) -> str:
    """The name of the task of a result; results of a task that was divided differ in the metric of their recipes."""
    for task in installed_tasks().values():
        if task.former_name == name and metric in {recipe.primary_metric for recipe in task.recipes.values()}:
            return task.name
    return name


def task_of_run(folder: Path) -> Task[Any] | None:
    """The installed task that a run folder is of; None where its files do not tell."""
    with suppress(RequestError):
        try:
            result = regular_json(folder / RESULT_FILE)
            name = _current_name(str(result["task"]), str(result["primary_metric"]["name"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):  # not finished, or damaged
            return task_of(read_recipe(folder))
        return installed_tasks().get(name)
    return None
