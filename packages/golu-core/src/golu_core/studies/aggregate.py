"""Collect finished runs into tables with statistics, next to the published values.

    golu-core aggregate runs                     tables on the terminal
    golu-core aggregate --study quick            a study's runs, and which of them have no result yet
    golu-core aggregate runs more --out report   and report/report.html, tables.md, tables.tex, CSV, JSON, figures
    golu-core aggregate --run runs/vision/digits/golu/seed0     one run's curves and tables

A run is identified by its result.json, not by its folder. Exit status: 0 the tables are printed; 1 a file could not be
written; 2 a wrong request or unusable input, and nothing is written.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro
from rich.console import Console

from golu_core.activation.names.registry import canonical_name
from golu_core.training.config.fields import Range, check_fields
from golu_core.training.config.former_names import with_new_names
from golu_core.training.config.help_page import CONFIG, shown
from golu_core.training.config.identity import config_sha256
from golu_core.training.config.named_activations import planned_activation
from golu_core.training.messages.errors import RequestError
from golu_core.training.messages.text_sinks import complain, say

from .exit_status import exit_status
from .reporting.choices import read_choices
from .reporting.collect import Collection, collect
from .reporting.comparison import load_libraries
from .reporting.failed_runs import with_failed_runs
from .reporting.formats import console, print_table
from .reporting.mixtures import refuse_differing_metrics, refuse_mixed, refuse_two_sources
from .reporting.planned import Planned, with_planned_runs
from .reporting.report import Report, check_report_folder, write_report
from .reporting.tuned import with_tuning, without_tuned

_LEFT_OUT_SHOWN = 10


@dataclass(frozen=True)
class Flags:
    """Collect finished runs into tables with statistics, next to the published values."""

    FORMER_NAMES: ClassVar[Mapping[str, str]] = {"equivalence_margin": "no_larger_than"}

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, shown("[FOLDER ...]")] = ()
    """Folders to search for runs, at any depth. With --study, defaults to the study's output folder."""
    study: Annotated[str | None, shown("STUDY")] = None
    """Study, by name or TOML file: also list the runs that it plans and that have no result."""
    trust_study: bool = False
    """Import the custom recipes that the study's file names. Read their code first. No activation's code runs."""
    out: Annotated[Path | None, shown("FOLDER")] = None
    """Folder for the report: HTML, Markdown, LaTeX, CSV, JSON and figures."""
    run: Annotated[Path | None, shown("RUN_DIR")] = None
    """Show the curves and tables of a single run, finished or not."""
    allow_mixed: bool = False
    """Show runs of one recipe with different configs as separate rows, instead of refusing them."""
    reference: Annotated[str, tyro.conf.arg(metavar="ACTIVATION")] = "golu"
    """Reference activation, which is compared with each of the others."""
    equivalence_margin: Annotated[Annotated[float, Range(gt=0.0, le=100.0)] | None, shown("PERCENT")] = None
    """Report where the seeds show that a difference is at most this percentage of the other activation's mean."""
    figures: Literal["png", "pdf", "svg"] = "png"
    """File format of the figures next to the HTML report."""


def aggregate(flags: Flags) -> None:
    """Print the tables of the runs, and write the report with --out."""
    with _results_stay():
        report = _report_of(flags)
        load_libraries()
        gc.freeze()
        files = None if flags.out is None else report.files(flags.figures)
        _print(report)
        if flags.out is not None and files is not None:
            write_report(flags.out, files)
            say(f"written: {flags.out}/report.html and {len(files) - 1} files next to it")


@contextmanager
def _results_stay() -> Iterator[None]:
    """Spares the garbage collector the walk over ten thousand results, which all stay.

    statsmodels collects garbage in every call, which took most of the time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.enable()


def _report_of(flags: Flags) -> Report:
    if flags.out is not None:
        check_report_folder(flags.out)
    try:
        reference = canonical_name(flags.reference)
    except ValueError as error:
        raise RequestError(str(error)) from None
    planned, folders = _plan_of(flags)
    collection = with_tuning(with_failed_runs(collect(folders)), folders)
    if planned:
        collection = with_planned_runs(collection, planned)
    counted = [*collection.runs, *collection.diverged]
    refuse_differing_metrics(counted)
    refuse_two_sources(counted)
    if not flags.allow_mixed:
        refuse_mixed(without_tuned(counted))
    return Report(collection, reference, flags.equivalence_margin)


def _plan_of(flags: Flags) -> tuple[list[Planned], tuple[Path, ...]]:
    """Return the runs that a study plans, without running code that it names, and the folders to search."""
    if flags.study is None:
        return [], flags.runs
    from .sweeping.consent import refuse_code
    from .sweeping.study import find_study, planned_runs, read_study
    from .sweeping.tuning import tuned_runs

    study = read_study(find_study(flags.study))
    if not flags.trust_study:
        refuse_code(study, set(), trains=False)
    runs = [*planned_runs(study), *tuned_runs(study, planned_activation, read_choices(study.output_dir))]
    planned = [
        Planned(run.folder, run.config.recipe, run.config.activation, run.config.seed, config_sha256(run.config))
        for run in runs
    ]
    return planned, flags.runs or (study.output_dir,)


def _print(report: Report) -> None:
    """All tables, what may be claimed, and what was left out."""
    output = console()
    for sentence in report.answer:
        output.print(sentence)
    for table in report.tables():
        print_table(table, output)
    for sentence in report.findings():
        output.print(sentence)
    _print_left_out(report.collection, output)


def _print_left_out(collection: Collection, output: Console) -> None:
    left_out = collection.left_out
    counted = len(collection.runs) + len(collection.diverged)
    verbs = "run is" if counted == 1 else "runs are", "was" if len(left_out) == 1 else "were"
    output.print(f"{counted} {verbs[0]} in the tables, {len(left_out)} {verbs[1]} left out.")
    for left in left_out[:_LEFT_OUT_SHOWN]:
        output.print(f"  {left}")
    if len(left_out) > _LEFT_OUT_SHOWN:
        output.print(f"  and {len(left_out) - _LEFT_OUT_SHOWN} more; --out lists all")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line and returns its exit status: 2 for a RequestError."""
    return exit_status("golu-core aggregate", lambda: _aggregate(arguments))


def _aggregate(arguments: list[str] | None) -> int:
    words, notes = with_new_names(Flags, sys.argv[1:] if arguments is None else arguments)
    for note in notes:
        complain(f"golu-core aggregate: {note}")
    flags = tyro.cli(Flags, args=words, prog="golu-core aggregate", config=CONFIG)
    check_fields(flags)
    if bool(flags.runs or flags.study) == (flags.run is not None):
        raise RequestError("no runs: name their folders, a study with --study, or one run with --run; see --help")
    if flags.run is not None:
        from .reporting.single import show_run

        show_run(flags.run, flags.out)
    else:
        aggregate(flags)
    return 0


if __name__ == "__main__":
    sys.exit(main())
