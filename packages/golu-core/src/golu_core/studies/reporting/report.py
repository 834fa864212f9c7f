"""The report: all tables, findings and figures of some runs, and the files that hold them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path

from golu_core.training.messages.errors import RequestError
from golu_core.training.messages.text_sinks import csv_text, markdown_text
from golu_core.training.storage.output_folders import output_folder
from golu_core.training.storage.ownership import (
    REPORT_MARKER,
    bytes_writer,
    is_vacant,
    read_marker,
    sweep_partials,
    write_atomically,
)

from .answer import answer, findings_over_recipes
from .card import Card, card
from .collect import Collection
from .comparison import FEWEST_FAMILIES, FEWEST_VALUES, OverRecipes, over_recipes
from .formats import json_text, latex, markdown, run_records, summary_records
from .paired import PairedComparison, paired_comparisons
from .summary import Row, rows_of
from .tables import Table, paired_table, pairs_table, rank_table, task_tables, time_table
from .tuned import choices_by_recipe, tuning_sentences, tuning_table, without_untuned

_METHODS = [
    (
        "Mean, standard error",
        "over seeds; the standard deviation is the sample's, with n - 1 (Python's statistics). One seed has neither. "
        "The paper's ± is std(ddof=0)/√3 in all cells that can be checked, but for Mask R-CNN's, where ddof is 1. "
        "A run whose metric is not a number, or that a loss ended that is not one (failure.json), has failed. Failures "
        "are shown next to the mean of the others; an activation that failed is ranked after all that failed less "
        "often, and one with fewer than half as many runs as another has no rank and is never the best.",
    ),
    (
        "Paired differences over seeds",
        "runs of the same seed have the same data in the same order, so that activations are compared seed by seed. "
        "Estimate, interval and test belong together: Hodges and Lehmann's estimate, the median of all means of two "
        "differences, with the interval of the shifts that Wilcoxon's signed-rank test (SciPy; two-sided, exact for "
        "few seeds) does not reject. They assume differences symmetric around their median. Below 6 seeds there is no "
        "such interval; Student's t of the mean stands there, marked by a t: it assumes that differences are normal, "
        "which 3 seeds cannot show. P-values are corrected by Holm's method over all comparisons of the report "
        "(statsmodels), and the second interval is for all of them together (Bonferroni), because a reader sees the "
        "report as a whole. They are reported where the seeds can reach one below 0.05: from 6 seeds on against one "
        "activation in one recipe, from 8 against four, from 12 in sixteen recipes. With 3 seeds not even an "
        "uncorrected p can fall below 0.25. A seed at which one activation failed is its largest loss. A seed has "
        "collapsed if it failed or ended more than half way from the best activation's median to chance (100/classes "
        "for top-1, 500/classes for top-5, 0 for other metrics of which more is better), and where less is better, "
        "above twice that median; the verdict is of the typical seed then, and counts the collapsed ones. Where mean "
        "and estimate have different signs, nothing is claimed. With --equivalence-margin D, a difference above D "
        "percent of the other mean is claimed to be absent where two one-sided signed-rank tests exclude it, "
        "corrected by Bonferroni's method.",
    ),
    (
        "Over recipes",
        "ranks of means, as Demsar (JMLR 2006) has it. Recipes of one line of architectures on one data set, such as "
        "ResNets on ImageNet, are a family: they give similar evidence, so a family is one block, with the mean of "
        "its recipes' ranks, ranked again. Friedman's test with a p-value by permuting ranks within families (SciPy, "
        "9,999 permutations) assumes that families are independent; those that share a data set are not quite. If it "
        "rejects: Nemenyi's test, with the critical-difference diagram, and Wilcoxon's signed-rank test over a "
        "family's mean of relative means, with Holm's correction (scikit-posthocs). At least "
        f"{FEWEST_FAMILIES} families.",
    ),
    (
        "Bootstrap intervals",
        f"of the mean over seeds (in summary.csv and report.json) and of mean ranks over recipes: 95 %, BCa (SciPy, "
        f"9,999 resamples), from {FEWEST_VALUES} values on; they assume that the values are independent draws.",
    ),
    (
        "Relative time",
        "mean seconds of an optimizer step, and of all evaluations of a run, over those of the architecture's own "
        "activation; only for runs with the same device, processor, processes and steps. Other load on the machine is "
        "unknown.",
    ),
]


class Report:
    """What is said about some runs.

    Args:
        collection: the runs.
        reference: the activation that is compared with each other.
        within: percent of the other's mean, for claims that no difference is larger; None makes no such claims.
    """

    def __init__(self, collection: Collection, reference: str, within: float | None = None) -> None:
        self.collection = collection
        self.reference = reference
        self.within = within
        self.rows: list[Row] = rows_of([*collection.runs, *collection.diverged])

    @cached_property
    def over(self) -> OverRecipes:
        """The comparison over recipes."""
        return over_recipes(without_untuned(self.rows))

    @cached_property
    def cards(self) -> list[Card]:
        """A reproducibility card for each recipe."""
        return [card(row) for row in self.rows if row.is_primary]

    @cached_property
    def paired(self) -> list[tuple[Row, list[PairedComparison]]]:
        """Each row with the reference against each other activation."""
        return paired_comparisons(without_untuned(self.rows), self.reference, self.within)

    @cached_property
    def result_tables(self) -> list[Table]:
        """Per task, across tasks, and times."""
        tables = [*task_tables(self.rows), tuning_table(self.collection)]
        found = [*tables, rank_table(self.over), time_table(self.rows)]
        return [table for table in found if table is not None]

    @cached_property
    def statistics_tables(self) -> list[Table]:
        """Pairs of activations over seeds, and over recipes where Friedman's test finds something."""
        tables = [paired_table(self.paired, self.reference)]
        friedman = self.over.friedman
        if friedman is not None and friedman.rejects:
            names = self.over.activations
            tables.append(pairs_table("Pairs over recipes: Nemenyi's test, p", friedman.nemenyi, names))
            if friedman.wilcoxon_holm is not None:
                title = "Pairs over recipes: Wilcoxon's test with Holm's correction, p"
                tables.append(pairs_table(title, friedman.wilcoxon_holm, names))
        return [table for table in tables if table is not None]

    def tables(self) -> list[Table]:
        """All tables."""
        return [*self.result_tables, *self.statistics_tables]

    def findings(self) -> list[str]:
        """What may be said over all recipes, in sentences."""
        return findings_over_recipes(self.over)

    @cached_property
    def answer(self) -> list[str]:
        """What the report opens with."""
        opening = answer(self.paired, self.findings(), self.reference)
        return [*opening, *tuning_sentences(self.collection), *self.collection.sentences]

    def files(self, figures: str) -> dict[str, bytes]:
        """The report's files by name.

        Args:
            figures: `png`, `pdf` or `svg`, of the figures beside the HTML report.
        """
        from .figures import all_figures, figure_files  # matplotlib takes half a second, which tables alone do not need
        from .page import PageContent, html_page

        choices = choices_by_recipe(self.collection)
        drawn = all_figures(self.rows, self.over, self.paired, self.reference, choices)
        tables = self.tables()
        content = PageContent(
            runs=[*self.collection.runs, *self.collection.diverged],
            recipes=len({(row.task, row.recipe) for row in self.rows}),
            answer=self.answer,
            result_tables=self.result_tables,
            statistics_tables=self.statistics_tables,
            findings=self.findings(),
            cards=self.cards,
            methods=_METHODS,
            left_out=self.collection.left_out,
        )
        texts = {
            "report.html": html_page(content, drawn),
            "tables.md": "\n".join(
                [*map(markdown_text, self.answer), "", *map(markdown, tables), *map(markdown_text, self.findings()), ""]
            ),
            "tables.tex": "\n".join(map(latex, tables)),
            "summary.csv": csv_text(summary_records(self.rows)),
            "runs.csv": csv_text(run_records(self.rows)),
            "report.json": json_text(self.collection, self.rows, self.paired, self.over),
        }
        files = {name: text.encode() for name, text in texts.items()}
        return files | {f"figures/{name}": content for name, content in figure_files(drawn, figures).items()}


def check_report_folder(folder: Path) -> None:
    """Raises RequestError if something lies at a report's place that these tools did not write."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise RequestError(f"--out {folder} is not a folder: name another one")
    if not is_vacant(folder) and read_marker(folder, REPORT_MARKER) is None:
        raise RequestError(f"--out {folder} holds files that are not a report: name another folder, or an empty one")


def write_report(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a report: a new folder appears whole or not at all, and in one that is there each file is replaced.

    Raises:
        RequestError: The folder holds something else than a report.
        OSError: A file could not be written; the message names it.
    """
    check_report_folder(folder)
    marked = {REPORT_MARKER: b'{"format": "golu-report/1"}\n', **files}
    if not is_vacant(folder):
        sweep_partials(folder)
        _write_files(folder, marked, write_atomically)
        return
    with output_folder(folder, "--out") as place:
        _write_files(place, marked, lambda path, write: write(path))


def _write_files(
    folder: Path, files: Mapping[str, bytes], written: Callable[[Path, Callable[[Path], None]], None]
) -> None:
    for name, content in files.items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            written(path, bytes_writer(content))
        except OSError as error:
            raise OSError(f"{path} could not be written: {error.strerror}") from error
