"""Tables without a format: what stands in which cell, for all formats alike."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from golu_core.training.tasks.task import installed_tasks

from .comparison import OverRecipes, rank_intervals
from .metrics import in_table_order, paper_name
from .paired import FEWEST_SEEDS, PairedComparison
from .summary import Cell, Row, geometric_mean, relative_times

_NOTHING = "–"
_MINUS = "−"


@dataclass(frozen=True)
class TableCell:
    """A cell's text, and whether it is the best of its row."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class TableRow:
    """A line of a table.

    Attributes:
        labels: its first cells.
        cells: the others.
        minor: it belongs to the line above.
    """

    labels: tuple[str, ...]
    cells: tuple[TableCell, ...]
    minor: bool = False


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: one line.
        labels: headings of the first columns.
        columns: headings of the others.
        rows: its lines.
        notes: sentences beneath.
    """

    title: str
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    rows: list[TableRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def task_tables(rows: Sequence[Row]) -> list[Table]:
    """A table for each task: mean ± standard error, standard deviation, published value and difference."""
    tasks = dict.fromkeys(row.task for row in rows)
    return [_task_table(task, [row for row in rows if row.task == task]) for task in tasks]


def _task_table(task: str, rows: Sequence[Row]) -> Table:
    activations = in_table_order(name for row in rows for name in row.cells)
    columns = (*(paper_name(name) for name in activations), "seeds")
    known = installed_tasks().get(task)
    table = Table(known.title if known else task, ("recipe", "metric", ""), columns)
    for row in rows:
        table.rows.extend(_lines(row, activations))
    table.notes.append("Mean ± standard error over seeds, best mean in bold; std is the sample standard deviation.")
    if any(cell.published for row in rows for cell in row.cells.values()):
        table.notes.append(
            "Published: mean ± over 3 seeds, as the paper prints them: the standard error of the population deviation "
            "(Mask R-CNN: of the sample deviation), so multiply by 1.22 to compare it with ours. "
            "Without ±: read from the paper's pictures. Difference: ours less published. Runs with settings of which "
            "nothing is published have no published value."
        )
    changed = [row for row in rows if row.overrides and row.is_primary]
    if changed:
        table.notes.append(
            "† not the recipe's settings: "
            + "; ".join(
                f"{row.name}{' (which is fitted to its data)' if known and row.recipe in known.own_data else ''}: "
                f"{', '.join(setting(o) for o in row.overrides)}"
                for row in changed
            )
            + "."
        )
    return table


def setting(override: tuple[str, object, object]) -> str:
    """`epochs 5 instead of 8`."""
    name, expected, found = override
    return f"{name} {found} instead of {expected}"


def _lines(row: Row, activations: Sequence[str]) -> list[TableRow]:
    label = row.name + ("†" if row.overrides else "")
    cells = [row.cells.get(name) for name in activations]
    first = TableRow(
        (label if row.is_primary else "", row.metric.label, "mean"),
        (*(_mean(row, name, cell) for name, cell in zip(activations, cells, strict=True)), TableCell(_seeds(cells))),
        minor=not row.is_primary,
    )
    lines = [first]
    if any(cell is not None and cell.n > 1 for cell in cells):
        lines.append(_minor("std", [_number(row, cell.std) if cell else _NOTHING for cell in cells]))
    if any(cell is not None and cell.published for cell in cells):
        lines.append(_minor("published", [_published(row, cell) for cell in cells]))
        lines.append(_minor("difference", [_signed(row, cell.difference) if cell else _NOTHING for cell in cells]))
    return lines


def _minor(label: str, texts: Iterable[str]) -> TableRow:
    return TableRow(("", "", label), (*(TableCell(text) for text in texts), TableCell("")), minor=True)


def _mean(row: Row, activation: str, cell: Cell | None) -> TableCell:
    if cell is None:
        return TableCell(_NOTHING)
    failed = f"{len(cell.failed)} failed" if cell.failed else ""
    if not cell.n:
        return TableCell(failed)
    text = _number(row, cell.mean)
    if cell.n > 1:
        text += f" ± {_number(row, cell.standard_error)}"
    return TableCell(f"{text} ({failed})" if failed else text, best=activation in row.best)


def _published(row: Row, cell: Cell | None) -> str:
    if cell is None or cell.published is None:
        return _NOTHING
    mean, spread = cell.published
    return _number(row, mean) + ("" if spread is None else f" ± {_number(row, spread)}")


def _number(row: Row, value: float) -> str:
    return _NOTHING if math.isnan(value) else f"{value:.{row.metric.decimals}f}".replace("-", _MINUS)


def _signed(row: Row, value: float) -> str:
    if math.isnan(value):
        return _NOTHING
    text = f"{value:+.{row.metric.decimals}f}"
    return (text if float(text) else text[1:]).replace("-", _MINUS)


def _seeds(cells: Iterable[Cell | None]) -> str:
    counts = sorted({cell.n for cell in cells if cell is not None})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


# -------------------------------------------------------------------------------------------------------- across tasks


def rank_table(over: OverRecipes) -> Table | None:
    """Ranks in each recipe, and their mean; None where no two activations can be compared."""
    if not over.rows:
        return None
    columns = tuple(paper_name(name) for name in over.activations)
    table = Table("Across tasks: rank of each activation by its mean", ("recipe", "metric"), columns)
    for row, ranks in zip(over.rows, over.ranks.tolist(), strict=True):
        best = min(ranks)
        cells = tuple(TableCell(f"{rank:g}", best=rank == best) for rank in ranks)
        table.rows.append(TableRow((row.name, row.metric.label), cells))
    means = over.mean_ranks
    lowest = min(means.values())
    over_families = "" if len(over.families) == len(over.rows) else "over families"
    table.rows.append(
        TableRow(
            ("mean rank", over_families),
            tuple(TableCell(f"{rank:.2f}", best=rank == lowest) for rank in means.values()),
        )
    )
    intervals = rank_intervals(over)
    if intervals:
        texts = (f"{low:.2f} to {high:.2f}" for low, high in intervals.values())
        table.rows.append(TableRow(("95 % interval", "bootstrap"), tuple(map(TableCell, texts)), minor=True))
    table.rows.append(TableRow(("best of its recipe", ""), tuple(TableCell(str(n)) for n in over.wins.values()), True))
    table.notes.append("1 is the best; equal means share their ranks. A recipe counts once, by its primary metric.")
    shared = [family for family in over.families if sum(row.family == family for row in over.rows) > 1]
    if shared:
        table.notes.append(f"Of one family, which counts once in mean ranks and tests: {'; '.join(shared)}.")
    table.notes.extend(f"{row.name} is left out: {reason}." for row, reason in over.left_out)
    return table


def time_table(rows: Sequence[Row]) -> Table | None:
    """Training and evaluation time relative to the architecture's own activation; None where none can be told."""
    primary = [row for row in rows if row.is_primary]
    found = [(row, *relative_times(row)) for row in primary]
    activations = in_table_order(name for _, times, _ in found for name in times)
    if not activations:
        return None
    columns = tuple(paper_name(name) for name in activations)
    table = Table("Relative time: training / evaluation", ("recipe", "own activation"), columns)
    for row, times, reason in found:
        if not times:
            table.notes.append(f"{row.name}: no relative times, {reason}.")
            continue
        assert row.default_activation is not None
        texts = (f"{t.training:.2f} / {t.evaluation:.2f}" if (t := times.get(a)) else _NOTHING for a in activations)
        table.rows.append(TableRow((row.name, paper_name(row.default_activation)), tuple(map(TableCell, texts))))
    means = [
        tuple(geometric_mean(getattr(t[a], part) for _, t, _ in found if a in t) for part in ("training", "evaluation"))
        for a in activations
    ]
    if len(table.rows) > 1:
        texts = (f"{training:.2f} / {evaluation:.2f}" for training, evaluation in means)
        table.rows.append(TableRow(("geometric mean", ""), tuple(map(TableCell, texts))))
    table.notes.append(
        "Seconds of an optimizer step, and of all evaluations of a run, as a multiple of the architecture's own "
        "activation; runs on the same hardware only. The paper has 1.01 / 1.00 for GoLU on average."
    )
    return table


# ---------------------------------------------------------------------------------------------------------- statistics


def paired_table(paired: Sequence[tuple[Row, list[PairedComparison]]], reference: str) -> Table | None:
    """The reference activation against each other, paired over seeds; None where there are no pairs."""
    name = paper_name(reference)
    together = f"for all {sum(len(pairs) for _, pairs in paired)}"
    columns = (f"{name} better by", "95 % interval", together, "seeds better", "p (Holm)", "smallest p", "verdict")
    table = Table(f"{name} against each other activation, over seeds", ("recipe", "metric", "against"), columns)
    for row, pairs in paired:
        for place, pair in enumerate(pairs):
            labels = (row.name, row.metric.label) if place == 0 else ("", "")
            by_t = " t" if len(pair.seeds) < FEWEST_SEEDS else ""
            texts = (
                _signed(row, pair.difference),
                _interval(row, pair.interval, by_t),
                _interval(row, pair.together, by_t),
                f"{pair.better} of {len(pair.seeds)}",
                _NOTHING if pair.p is None else p_value(pair.p),
                f"{pair.smallest_p:.2g}",
                pair.verdict,
            )
            table.rows.append(
                TableRow((*labels, paper_name(pair.other)), tuple(map(TableCell, texts)), minor=place > 0)
            )
    table.notes.append(
        "Better by: Hodges and Lehmann's estimate over seeds, with its 95 % interval, and the interval that holds for "
        "all comparisons of this table together; t: Student's, of the mean, where seeds are too few for another. "
        "p: of the signed-rank test, corrected by Holm's method over the table; smallest p: the smallest that this "
        "many seeds can reach. If it is not below 0.05, nothing is tested."
    )
    return table if table.rows else None


def _interval(row: Row, interval: tuple[float, float] | None, mark: str) -> str:
    if interval is None:
        return _NOTHING
    return " to ".join(f"{end:+.{row.metric.decimals}f}".replace("-", _MINUS) for end in interval) + mark


def p_value(p: float) -> str:
    """`0.012`, `< 0.001`."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def pairs_table(title: str, p_values: Mapping[str, Mapping[str, float]], activations: Sequence[str]) -> Table:
    """P-values of all pairs of activations."""
    names = [paper_name(name) for name in activations]
    table = Table(title, ("",), tuple(names))
    for one in activations:
        texts = [_NOTHING if one == other else p_value(float(p_values[one][other])) for other in activations]
        table.rows.append(TableRow((paper_name(one),), tuple(map(TableCell, texts))))
    return table
