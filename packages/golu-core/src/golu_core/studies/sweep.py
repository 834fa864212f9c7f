"""Train a study: recipes x activations x seeds. Each run is a plain command that you could type.

    golu-core sweep quick                      train this study on this machine
    golu-core sweep my-study.toml --print      print the commands of its runs, one per line
    golu-core sweep my-study.toml --status     show which runs are finished, stopped or failed
    golu-core sweep my-study.toml --power 1    print how many seeds would show a difference of 1%
    golu-core sweep my-study.toml --cluster slurm --partition gpu
    golu-core sweep --recipes digits --activations relu golu --seeds 0 1 2 --set "optim.lr=[0.1, 0.05]"

A study with [tune] first trains pilot runs on held-out data, then chooses a setting for each activation, then trains
the study's seeds with it; see `sweeping.tuning`.

Printing a plan or its status runs no activation's code. Code that only the study's file names, in a file or a package,
runs if you pass --trust-study, or name it with --activations or --recipes as well.

The same command continues a study that was stopped or killed: finished runs stay, and stopped runs resume. Several
sweeps can share a folder: each trains the runs that no other process trains, and waits for the rest. Exit status: 0 all
runs are finished; 1 some runs failed, and their names are printed; 2 a wrong request; 129, 130 or 143 stopped by a
signal, after the runs have saved.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from golu_core.training.config.fields import Range, check_fields
from golu_core.training.config.help_page import CONFIG, shown
from golu_core.training.config.named_activations import named_activation, planned_activation
from golu_core.training.messages.errors import RequestError
from golu_core.training.messages.text_sinks import complain, say, say_data

from .exit_status import exit_status
from .reporting.choices import choice_lines, read_choices
from .sweeping.consent import refuse_code
from .sweeping.flags import as_typed, flat_flags
from .sweeping.study import (
    ClusterNeeds,
    PlannedRun,
    Study,
    check_tuning,
    find_study,
    planned_runs,
    read_study,
    study_from,
)
from .sweeping.tuning import Named, chosen_settings, pilot_runs, tuned_runs

if TYPE_CHECKING:
    from .sweeping.local import Job


@dataclass(frozen=True)
class Flags:
    """Train a study: recipes x activations x seeds. Flags override the study's file."""

    study: Annotated[str | None, tyro.conf.Positional, shown("[STUDY]")] = None
    """Your study as a TOML file, or a built-in study by name: quick, evidence, paper, ..."""
    recipes: Annotated[tuple[str, ...], shown("RECIPE ...")] = ()
    """Recipes to train. With a study, train only these of its recipes."""
    activations: Annotated[tuple[str, ...], shown("ACTIVATION ...")] = ()
    """Activations to compare."""
    seeds: Annotated[tuple[int, ...], shown("SEED ...")] = ()
    """Seeds for each recipe and activation."""
    set: Annotated[tuple[str, ...], shown("NAME=VALUE ...")] = ()
    """Flags of `train` for all runs, with TOML values. A list makes a run per item: `optim.lr=[0.1, 0.05]`."""
    output_dir: Annotated[Path | None, shown("FOLDER")] = None
    """Folder for the runs. Defaults to the study's, or `runs`."""
    data_dir: Annotated[Path | None, shown("FOLDER")] = None
    """Folder that holds the data sets."""
    processes: Annotated[int | None, shown()] = None
    """Number of GPUs per run, or of processes on a CPU."""
    parallel: Annotated[int | None, shown()] = None
    """Number of runs to train at the same time on this machine."""
    retry: bool = False
    """Try failed runs again."""
    print_only: Annotated[bool, tyro.conf.arg(name="print")] = False
    """Print the commands without running them."""
    trust_study: bool = False
    """Run the custom activations and recipes that the study's file names. Read their code first."""
    status: bool = False
    """Show which runs are finished, without running anything."""
    power: Annotated[Annotated[float, Range(gt=0.0, le=100.0)] | None, shown("PERCENT")] = None
    """Print how many seeds would show a difference of this many percent, without running anything."""
    cluster: Annotated[Literal["slurm", "local"] | None, shown()] = None
    """Submit the runs with submitit: to SLURM, or to its local executor, which starts all runs at once."""
    wait: bool = False
    """With --cluster: wait until the runs have ended."""
    needs: Annotated[tyro.conf.OmitArgPrefixes[ClusterNeeds], tyro.conf.arg(name="cluster")] = field(
        default_factory=ClusterNeeds
    )


def study_of(flags: Flags) -> Study:
    """Return the study that the flags name or describe; RequestError if they do neither."""
    if flags.study is None:
        if not flags.recipes:
            raise RequestError("no study: name one (quick, or a TOML file), or pass --recipes; see --help")
        study = study_from({"experiment": [{"recipes": list(flags.recipes)}]}, "the command line")
    else:
        study = read_study(find_study(flags.study))
    names = ("output_dir", "data_dir", "processes", "parallel")
    given = {name: value for name in names if (value := getattr(flags, name)) is not None}
    experiments = [_changed(experiment, flags) for experiment in study.experiment]
    experiments = [experiment for experiment in experiments if experiment.recipes]
    if not experiments:
        raise RequestError(f"the study has none of the recipes {', '.join(flags.recipes)}")
    for name in ("parallel", "processes"):
        if given.get(name, 1) < 1:
            raise RequestError(f"--{name} must be at least 1, not {given[name]}")
    changes: dict[str, Any] = {"experiment": experiments, **given}
    if flags.activations:
        changes["activations"] = list(flags.activations)
    if flags.seeds:
        changes["seeds"] = list(flags.seeds)
    changed = dataclasses.replace(study, **changes)
    check_tuning(changed, "with the flags of this command, the study")
    return changed


def _changed(experiment: Any, flags: Flags) -> Any:
    given = _settings(flags.set)
    replaced = {as_typed(name) for name in given}
    kept = {name: value for name, value in flat_flags(experiment.flags).items() if as_typed(name) not in replaced}
    changes: dict[str, Any] = {"flags": kept | given}
    if flags.recipes:
        changes["recipes"] = [recipe for recipe in experiment.recipes if recipe in flags.recipes]
    if flags.activations:
        changes["activations"] = None
    if flags.seeds:
        changes["seeds"] = None
    return dataclasses.replace(experiment, **changes)


def _settings(texts: tuple[str, ...]) -> dict[str, Any]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise RequestError(f"--set needs name=value, but got {text!r}")
        try:
            found[name] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[name] = value
    return found


def _print_commands(runs: list[PlannedRun], parallel: int, gpus: int) -> None:
    """Print each run's command, quoted for a shell."""
    from .sweeping.local import threads_of

    for run in runs:
        words = run.command(None if gpus else threads_of(run, parallel))
        environment = "" if gpus or run.processes == 1 else "ACCELERATE_USE_CPU=true "
        say_data(f"{environment}{shlex.join(words)}")


def run_here(study: Study, runs: list[PlannedRun], flags: Flags) -> int:
    """Run the study on this machine, and return the exit status."""
    from .sweeping.local import LocalStudy, jobs_of, visible_gpus
    from .sweeping.view import StudyView, summary

    jobs = jobs_of(runs, study.output_dir / "logs", flags.retry)
    devices = visible_gpus()
    parallel = _parallel(study, runs, len(devices))
    try:
        with StudyView(jobs, parallel) as view:
            LocalStudy(jobs, parallel, devices, view).run()
    finally:
        summary(jobs)
    return _ended(jobs, study)


def _parallel(study: Study, runs: list[PlannedRun], gpus: int) -> int:
    """Return the number of parallel runs: the study's, but at most as many as there are GPUs for."""
    if gpus == 0:
        return study.parallel or 1
    most = max(run.processes for run in runs)
    if most > gpus:
        raise RequestError(
            f"a run of {most} processes needs {most} GPUs, but this machine has {gpus}; choose other --processes"
        )
    return min(study.parallel or gpus, gpus // most)


def _submit_all(study: Study, runs: list[PlannedRun], flags: Flags) -> int:
    """Submit the study, wait with --wait, and return the exit status."""
    from golu_core.training.storage.locks import BUSY

    from .sweeping.cluster import submit
    from .sweeping.local import State, jobs_of
    from .sweeping.view import summary

    assert flags.cluster is not None
    logs = study.output_dir / "logs"
    jobs = jobs_of(runs, logs, flags.retry)
    submitted = submit(jobs, flags.cluster, flags.needs, logs)
    for run in submitted:
        say(f"submitted {run.handle.job_id:>12}  {run.job.run.name}")
    counts = [
        f"{sum(job.state is state for job in jobs)} {what}"
        for state, what in (
            (State.FINISHED, "were already finished"),
            (State.RUNNING, "are already queued"),
            (State.ELSEWHERE, "are being trained by another process"),
            (State.FAILED, "failed before (pass --retry to train them again)"),
        )
        if state is State.FINISHED or any(job.state is state for job in jobs)
    ]
    what = "1 run" if len(submitted) == 1 else f"{len(submitted)} runs"
    say(f"{what} submitted, {', '.join(counts)}; logs: {logs}/<job>; --status shows their progress")
    if not flags.wait:
        return 0
    for run in submitted:
        error = run.handle.exception()
        run.job.log = Path(run.handle.paths.stderr)
        run.job.state = State.FINISHED if error is None else State.FAILED
        run.job.reason = "" if error is None else run.job.last_words()
        if BUSY in str(error):
            run.job.look()
    summary(jobs)
    return _ended(jobs, study)


def _ended(jobs: Sequence[Job], study: Study) -> int:
    from .sweeping.local import State
    from .sweeping.tuning import has_diverged

    diverged = [job for job in jobs if job.state is State.FAILED and has_diverged(job.run)]
    if any(job.state is not State.FINISHED and job not in diverged for job in jobs):
        return 1
    if diverged:
        runs = "1 pilot run" if len(diverged) == 1 else f"{len(diverged)} pilot runs"
        say(f"{runs} ended at a loss that is not finite, which counts against the setting")
    if all(job.run.is_pilot for job in jobs):
        say("all pilot runs have ended")
        return 0
    say(f"all runs are finished; their tables: golu-core aggregate {shlex.quote(str(study.output_dir))}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status: 2 for a RequestError."""
    return exit_status("golu-core sweep", lambda: _sweep(arguments))


def _sweep(arguments: list[str] | None) -> int:
    flags = tyro.cli(Flags, args=arguments, prog="golu-core sweep", config=CONFIG)
    check_fields(flags)
    study = study_of(flags)
    trains = not (flags.print_only or flags.status or flags.power is not None)
    if not flags.trust_study:
        refuse_code(study, {*flags.recipes, *flags.activations}, trains)
    named = named_activation if trains else planned_activation
    runs = planned_runs(study, named)
    if flags.power is not None:
        from .power import power_table
        from .reporting.formats import console, print_table

        print_table(power_table(runs, study.output_dir, flags.power), console())
        return 0
    pilots = pilot_runs(study, named)
    tuned = tuned_runs(study, named, read_choices(study.output_dir))
    if flags.print_only:
        from .sweeping.local import visible_gpus

        gpus = len(visible_gpus())
        planned = [*pilots, *runs, *tuned]
        _print_commands(planned, _parallel(study, planned, gpus), gpus)
        if pilots and not read_choices(study.output_dir):
            complain("golu-core sweep: the commands of the tuned runs follow from the pilot runs, which are not done")
        return 0
    if flags.status:
        return _show_status(study, [*pilots, *runs, *tuned], flags)
    train = run_here if flags.cluster is None else _submit_all
    if not pilots:
        return train(study, runs, flags)
    return _tune_and_train(study, named, runs, pilots, flags)


def _show_status(study: Study, runs: list[PlannedRun], flags: Flags) -> int:
    """Print how many runs are finished."""
    from .sweeping.local import jobs_of
    from .sweeping.view import summary

    summary(jobs_of(runs, study.output_dir / "logs", flags.retry))
    return 0


def _tune_and_train(study: Study, named: Named, runs: list[PlannedRun], pilots: list[PlannedRun], flags: Flags) -> int:
    """Train the pilot runs, choose settings, and train the study's seeds with the recipes' own and the chosen ones."""
    train = run_here if flags.cluster is None else _submit_all
    choices = chosen_settings(study, named)
    if choices is None:
        status = train(study, pilots, flags)
        choices = chosen_settings(study, named)
        if choices is None:
            complain("golu-core sweep: settings are chosen once all pilot runs have ended: run the same command again")
            return status
    for line in choice_lines(choices):
        say(line)
    return train(study, [*runs, *tuned_runs(study, named, choices)], flags)


if __name__ == "__main__":
    sys.exit(main())
