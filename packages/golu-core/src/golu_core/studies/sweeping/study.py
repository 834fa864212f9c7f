"""A study: which recipes, activations, seeds and flags; and the runs that it expands to."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from golu_core.activation.names.specs import folder_name
from golu_core.training.config.help_page import shown
from golu_core.training.config.named_activations import NamedActivation, planned_activation
from golu_core.training.config.run_config import RunConfig
from golu_core.training.messages.errors import RequestError
from golu_core.training.storage.user_files import read_toml
from golu_core.training.tasks.command_line import CommandLine
from golu_core.training.tasks.task import Task, named_recipe, task_of

from .flags import as_typed, flat_flags, variants

_STUDIES = Path(__file__).resolve().parents[1] / "plans"


@dataclass(frozen=True)
class Tuning:
    """How a study chooses settings for each activation before it trains its seeds: `[tune]`.

    Attributes:
        seeds: Seeds of the pilot runs; none may be a seed of the study.
        log_uniform: For each flag, the lowest and highest value to try.
        values: For each flag, the values to try.
        trials: Number of settings to try where a flag has a range. Without one, all combinations of the values are
            tried.
    """

    seeds: list[int]
    log_uniform: dict[str, list[float]] = field(default_factory=dict)
    values: dict[str, list[Any]] = field(default_factory=dict)
    trials: int = 8


@dataclass(frozen=True)
class Experiment:
    """Recipes that are trained with every activation and seed.

    Attributes:
        recipes: Recipes of any task.
        flags: Flags of `train` by name, such as `{"optim.lr": [0.1, 0.05], "epochs": 4}`. A list is varied, a run for
            each of its values; a value that is itself a list stands in a list. `{activation}`, `{seed}` and
            `{output_dir}` are filled in.
        activations, seeds: instead of the study's.
        after: a recipe whose run with the same activation and seed, if the study has it, must be finished first.
        processes: GPUs of one run, instead of the study's.
        tune: Settings to choose for each activation, instead of the study's.
    """

    recipes: list[str]
    flags: dict[str, Any] = field(default_factory=dict)
    activations: list[str] | None = None
    seeds: list[int] | None = None
    after: str | None = None
    processes: int | None = None
    tune: Tuning | None = None


@dataclass(frozen=True)
class Study:
    """What a study's file holds.

    Attributes:
        experiment: one or more.
        activations, seeds: each recipe is trained with each of them.
        output_dir: the runs lie in OUTPUT_DIR/<task>/<recipe>/<activation>/seed<N>, and their logs in OUTPUT_DIR/logs;
            where flags are varied, a folder such as `optim.lr=0.1` lies between.
        data_dir: folder that holds the data sets.
        processes: GPUs, or processes on a CPU, per run.
        parallel: runs at a time on one machine, at most as many as it has GPUs for, if it has any.
        tune: Settings to choose for each activation before the seeds are trained; see `tuning`.
    """

    experiment: list[Experiment]
    activations: list[str] = field(default_factory=lambda: ["relu", "gelu", "swish", "mish", "golu"])
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    output_dir: Path = Path("runs")
    data_dir: Path | None = None
    processes: int = 1
    parallel: int | None = None
    tune: Tuning | None = None


@dataclass(frozen=True)
class ClusterNeeds:
    """Resources that each run requests from the cluster, for --cluster."""

    partition: Annotated[str | None, shown()] = None
    """SLURM partition."""
    account: Annotated[str | None, shown()] = None
    """SLURM account to charge."""
    constraint: Annotated[str | None, shown()] = None
    """SLURM constraint: features that a node must have."""
    minutes: int = 24 * 60
    """Time limit of a run in minutes. A run that needs longer is requeued, and resumes."""
    gpus: Annotated[int | None, shown()] = None
    """GPUs per run. Defaults to one per process."""
    cpus: int = 8
    """CPU cores per run."""
    memory_gb: Annotated[int | None, shown()] = None
    """Memory per run in GB. Defaults to the cluster's default."""
    at_a_time: int = 64
    """Maximum number of runs that SLURM runs at the same time."""


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study.

    Attributes:
        task: The task of its recipe.
        config: The config that its command resolves to.
        arguments: The arguments of `train`: recipe and flags.
        variant: The varied flags, such as `optim.lr=0.1`.
        after: the folder of a run that must be finished first.
        processes: The number of processes that train together.
    """

    task: Task[Any]
    config: RunConfig
    arguments: tuple[str, ...]
    variant: str
    after: Path | None
    processes: int

    @property
    def folder(self) -> Path:
        """Where the run lies."""
        return self.task.run_folder(self.config)

    @property
    def name(self) -> str:
        """How people and log files call it."""
        parts = (self.config.recipe, self.variant, folder_name(self.config.activation), f"seed{self.config.seed}")
        return "-".join(part for part in parts if part)

    @property
    def is_pilot(self) -> bool:
        """Whether settings are chosen by it, on data that are held out."""
        return self.config.holdout == "validation"

    @property
    def module(self) -> list[str]:
        """The part of its command that launchers take."""
        return ["-m", self.task.package, "train", *self.arguments]

    def command(self, threads: int | None) -> list[str]:
        """The whole command.

        Args:
            threads: The number of threads of each process on a CPU; None leaves it to the launcher.
        """
        several = ["--multi_gpu", "--main_process_port", "0"] if self.processes > 1 else []
        per_process = [] if threads is None else ["--num_cpu_threads_per_process", str(threads)]
        launcher = ["--num_processes", str(self.processes), *several, "--num_machines", "1"]
        launcher += ["--mixed_precision", "no", "--dynamo_backend", "no", *per_process]
        return ["accelerate", "launch", *launcher, *self.module]


def find_study(name: str) -> Path:
    """The file of a study: a path, or the name of one that the built-in studies are; RequestError if there is none."""
    path, ours = Path(name), _STUDIES / f"{name}.toml"
    if path.is_file() or not ours.is_file():
        return path
    return ours


def read_study(path: Path) -> Study:
    """Reads a study's TOML file; RequestError with its name where it cannot be read or has another shape."""
    known = ", ".join(sorted(file.stem for file in _STUDIES.glob("*.toml")))
    values = read_toml(path, missing=f"unknown study {path}; the built-in studies are {known}")
    return study_from(values, str(path))


def study_from(values: Mapping[str, Any], source: str) -> Study:
    """The study that TOML values describe; RequestError that names the source and the field."""
    import cattrs

    converter = cattrs.Converter(forbid_extra_keys=True)
    converter.register_structure_hook(Path, lambda value, _: Path(value))
    converter.register_structure_hook(str, _as_it_is(str))
    converter.register_structure_hook(int, _as_it_is(int))
    _check_lists(values, source)
    try:
        study = converter.structure(dict(values), Study)
    except Exception as error:
        raise RequestError(f"{source} is not a study: {'; '.join(cattrs.transform_error(error))}") from None
    if not study.experiment:
        raise RequestError(f"{source} has no [[experiment]]")
    check_tuning(study, source)
    counts = [("parallel", study.parallel), ("processes", study.processes)]
    counts += [("processes", experiment.processes) for experiment in study.experiment]
    for name, value in counts:
        if value is not None and value < 1:
            raise RequestError(f"{source}: {name} must be at least 1, not {value}")
    parts: list[Study | Experiment] = [study, *study.experiment]
    for part in parts:
        for name in ("recipes", "activations", "seeds"):
            if getattr(part, name, None) == []:
                raise RequestError(f"{source}: {name} is empty, so there is nothing to run")
        if min(part.seeds or [0]) < 0:
            raise RequestError(f"{source}: a seed must not be negative, but one is {min(part.seeds or [0])}")
    return study


def check_tuning(study: Study, source: str) -> None:
    """Raise RequestError if settings cannot be chosen as the file says."""
    for experiment in study.experiment:
        tune = experiment.tune or study.tune
        if tune is None:
            continue
        seeds = study.seeds if experiment.seeds is None else experiment.seeds
        shared = sorted(set(tune.seeds) & set(seeds))
        flags = {as_typed(name) for name in flat_flags(experiment.flags)}
        tuned = [*tune.log_uniform, *tune.values]
        twice = [name for name in tuned if as_typed(name) in flags or tuned.count(name) > 1]
        bad = [name for name, ends in tune.log_uniform.items() if len(ends) != 2 or not 0 < ends[0] < ends[1]]
        problems = [
            ("names no flag: set log_uniform or values", not tuned),
            ("has no seeds", not tune.seeds or min(tune.seeds) < 0),
            (f"uses the seeds {shared} of the study: pilot runs need other ones", bool(shared)),
            (f"has {', '.join(dict.fromkeys(twice))} twice, or in flags as well", bool(twice)),
            (f"has a range for {', '.join(bad)} that is not two increasing numbers above 0", bool(bad)),
            ("has an empty list of values", any(not values for values in tune.values.values())),
            (f"has {tune.trials} trials", tune.trials < 1),
            ("sets holdout, which flags cannot set as well", "holdout" in flags),
        ]
        for problem, found in problems:
            if found:
                raise RequestError(f"{source}: tune {problem}")


def _as_it_is(kind: type) -> Callable[[Any, Any], Any]:
    """Takes values of a type only, where cattrs would make one of the other: 1 of true, or '3' of 3."""

    def structure(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise ValueError(f"{value!r} is not {'text' if kind is str else 'a whole number'}")
        return value

    return structure


def _check_lists(values: Mapping[str, Any], source: str) -> None:
    """A text would be taken for the list of its letters."""
    experiments = values.get("experiment", [])
    if not isinstance(experiments, list):
        raise RequestError(f"{source}: write an experiment as [[experiment]]")
    for part in (values, *experiments):
        for name in ("recipes", "activations", "seeds"):
            if isinstance(part, Mapping) and not isinstance(part.get(name, []), list):
                raise RequestError(f"{source}: {name} must be a list, not {part[name]!r}")


def planned_runs(study: Study, named: Callable[[str], NamedActivation] = planned_activation) -> list[PlannedRun]:
    """The runs of a study, in the order of its file; activations vary fastest, then seeds.

    Args:
        study: its recipes are imported where they are of a file or package.
        named: reads an activation's text; `named_activation` also loads what it names, once, before anything is
            trained.

    Raises:
        RequestError: a recipe, activation or flag is not known, a flag is one that the study sets itself, or two runs
            would share a folder.
    """
    return without_clashes(run for experiment in study.experiment for run in runs_of(experiment, study, named))


def without_clashes(planned: Iterable[PlannedRun]) -> list[PlannedRun]:
    """The runs, which have a folder each; RequestError where two share one, or would wait for each other."""
    runs = list(planned)
    folders: dict[Path, PlannedRun] = {}
    for run in runs:
        if run.folder in folders:
            raise RequestError(f"the study has the run {run.name} twice: both would be in {run.folder}")
        folders[run.folder] = run
    _refuse_cycles(folders)
    # a run that is not part of the study is done already, or its command says what is missing
    return [run if run.after in folders else dataclasses.replace(run, after=None) for run in runs]


def _refuse_cycles(runs: Mapping[Path, PlannedRun]) -> None:
    """Raises RequestError where runs wait for each other."""
    for first in runs.values():
        chain, run = [first.name], first
        while run.after is not None and run.after in runs:
            run = runs[run.after]
            chain.append(run.name)
            if run is first:
                raise RequestError(f"these runs wait for each other: {' after '.join(chain)}")
            if len(chain) > len(runs):
                break  # a cycle that does not lead back to this run is found from one of its own


def runs_of(
    experiment: Experiment,
    study: Study,
    named: Callable[[str], NamedActivation],
    folder: str = "",
    more_flags: Sequence[str] = (),
) -> Iterator[PlannedRun]:
    """Yield the runs of an experiment.

    Args:
        experiment, study: The experiment and its study.
        named: Reads an activation's text.
        folder: A folder below the study's, such as for pilot runs, which is also part of the runs' names.
        more_flags: Flags of all runs, after the experiment's.
    """
    activations = [named(text) for text in experiment.activations or study.activations]
    seeds = study.seeds if experiment.seeds is None else experiment.seeds
    for recipe, (varied, own_flags) in itertools.product(experiment.recipes, variants(experiment.flags)):
        task = task_of(recipe)
        recipe = anywhere(recipe)
        flags, variant = [*own_flags, *more_flags], "-".join(filter(None, (*folder.split("/"), varied)))
        output_dir = study.output_dir / folder / varied
        placement = ["--output-dir", str(output_dir)]
        if study.data_dir is not None:
            placement += ["--data-dir", str(study.data_dir)]
        template = _parsed(task, [recipe, *placement, *flags])
        # activations in turn, so that what else a machine does meets all alike, and a half-done study compares already
        for seed, activation in itertools.product(seeds, activations):
            place = folder_name(activation.text)
            known = {"activation": place, "seed": seed, "output_dir": study.output_dir}
            config = dataclasses.replace(
                _filled(template, known),
                activation=activation.text,
                activation_source=activation.source,
                seed=seed,
            )
            filled = [_fill(flag, known) for flag in flags]
            after = None
            if experiment.after is not None:
                earlier, its_config = named_recipe(experiment.after)
                after = study.output_dir / earlier.name / its_config.recipe / place / f"seed{seed}"
            yield PlannedRun(
                task=task,
                config=config,
                arguments=(recipe, "--activation", activation.argument, "--seed", str(seed), *placement, *filled),
                variant=variant,
                after=after,
                processes=experiment.processes or study.processes,
            )


def anywhere(recipe: str) -> str:
    """A recipe's name as another process can take it, from any working directory."""
    path, colon, name = recipe.rpartition(":")
    return f"{Path(path).expanduser().absolute()}:{name}" if colon and path.endswith(".py") else recipe


def _parsed(task: Task[Any], arguments: Sequence[str]) -> RunConfig:
    try:
        config: RunConfig = CommandLine(task).config(arguments)
    except SystemExit:  # tyro has printed what is wrong
        raise RequestError(f"the flags of {arguments[0]} are wrong, see above") from None
    return config


def _fill(text: str, known: Mapping[str, Any]) -> str:
    try:
        filled = text.format_map(known)
    except (KeyError, ValueError, IndexError, AttributeError):
        raise RequestError(f"{text!r}: the placeholders are {{{'}, {'.join(known)}}}") from None
    if filled.startswith("-") and not text.startswith("-"):
        raise RequestError(f"{text!r} becomes {filled!r}, which is a flag itself")
    return filled


def _filled(value: Any, known: Mapping[str, Any]) -> Any:
    """A config whose texts have their placeholders filled in."""
    if isinstance(value, str):
        return _fill(value, known)
    if isinstance(value, Path):
        return Path(_fill(str(value), known))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _filled(getattr(value, f.name), known) for f in dataclasses.fields(value) if f.init}
        return dataclasses.replace(value, **fields)
    return value
