"""Tables as text: for a terminal, Markdown, LaTeX; and the numbers behind them as CSV and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from golu_core.training.messages.text_sinks import console as plain_console
from golu_core.training.messages.text_sinks import latex_text, markdown_text, visible

from .choices import as_json
from .collect import Collection, shown
from .comparison import OverRecipes, bootstrap_interval
from .metrics import paper_name
from .paired import PairedComparison
from .summary import Row, hardware, relative_times
from .tables import Table

_AGGREGATE_SCHEMA = "golu-aggregate/1"


def console() -> Console:
    """The terminal; at full width where the output is none, so that files and pipes get whole tables."""
    found = plain_console()
    return found if found.is_terminal else plain_console(width=200)


def print_table(table: Table, output: Console) -> None:
    """Prints a table with its notes."""
    drawn = RichTable(
        title=table.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, header_style="bold"
    )
    for heading in table.labels:
        drawn.add_column(heading, no_wrap=True)
    for heading in table.columns:
        drawn.add_column(heading, justify="right")
    for row in table.rows:
        style = "dim" if row.minor else ""
        cells = [Text(visible(cell.text), style="bold" if cell.best else style) for cell in row.cells]
        drawn.add_row(*(Text(visible(label), style=style) for label in row.labels), *cells)
    output.print(drawn)
    for note in table.notes:
        output.print(f"  {note}", style="dim")
    if table.notes:
        output.print()


def markdown(table: Table) -> str:
    """The table in GitHub's Markdown."""
    headings = [*table.labels, *table.columns]
    ruler = ["---"] * len(table.labels) + ["---:"] * len(table.columns)
    lines = [f"### {markdown_text(table.title)}", "", _markdown_row(map(markdown_text, headings)), _markdown_row(ruler)]
    for row in table.rows:
        cells = [f"**{markdown_text(cell.text)}**" if cell.best else markdown_text(cell.text) for cell in row.cells]
        lines.append(_markdown_row([*map(markdown_text, row.labels), *cells]))
    lines += ["", *(f"{markdown_text(note)}  " for note in table.notes)]
    return "\n".join(lines).rstrip() + "\n"


def _markdown_row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def latex(table: Table) -> str:
    r"""The table for LaTeX with `\usepackage{booktabs}`."""
    columns = "l" * len(table.labels) + "r" * len(table.columns)
    headings = " & ".join(map(latex_text, [*table.labels, *table.columns]))
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex_text(table.title)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
    ]
    lines += [r"\toprule", rf"{headings} \\", r"\midrule"]
    for place, row in enumerate(table.rows):
        if place and not row.minor and len(table.labels) == 3:
            lines.append(r"\addlinespace")
        cells = [rf"\textbf{{{latex_text(cell.text)}}}" if cell.best else latex_text(cell.text) for cell in row.cells]
        lines.append(rf"{' & '.join([*map(latex_text, row.labels), *cells])} \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\smallskip{{\footnotesize {latex_text(' '.join(table.notes))}}}"] if table.notes else []
    return "\n".join([*lines, r"\end{table}"]) + "\n"


# ------------------------------------------------------------------------------------------------- numbers in full


def summary_records(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One record for each row and activation, numbers unrounded; None where there is none."""
    records = []
    for row in rows:
        times, _ = relative_times(row)
        for activation, cell in row.cells.items():
            interval = bootstrap_interval(cell.values.values()) or (None, None)
            time = times.get(activation)
            records.append(
                {
                    "task": row.task,
                    "recipe": row.recipe,
                    "variant": row.variant,
                    "model": row.model,
                    "dataset": row.dataset,
                    "metric": row.metric_name,
                    "higher_is_better": row.metric.higher_is_better,
                    "activation": activation,
                    "n": cell.n,
                    "failed": len(cell.failed),
                    "mean": _finite(cell.mean),
                    "standard_error": _finite(cell.standard_error),
                    "std": _finite(cell.std),
                    "bootstrap_low": interval[0],
                    "bootstrap_high": interval[1],
                    "best": activation in row.best,
                    "published": cell.published[0] if cell.published else None,
                    "published_spread": cell.published[1] if cell.published else None,
                    "difference": _finite(cell.difference),
                    "relative_training_time": time.training if time else None,
                    "relative_evaluation_time": time.evaluation if time else None,
                    "overrides": "; ".join(f"{name}={found}" for name, _, found in row.overrides),
                }
            )
    return records


def run_records(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One record per run."""
    records = []
    for row in rows:
        if not row.is_primary:
            continue
        for run in row.runs:
            result = run.result
            device, processor = hardware(run)
            records.append(
                {
                    "task": row.task,
                    "recipe": row.recipe,
                    "variant": row.variant,
                    "activation": result.activation,
                    "seed": result.seed,
                    "metric": row.metric_name,
                    "value": _finite(result.primary_metric.value),
                    "failed": run.failed,
                    "steps": result.steps,
                    "train_seconds": result.train_seconds,
                    "eval_seconds": result.eval_seconds,
                    "world_size": result.world_size,
                    "device": device,
                    "host_cpu": processor,
                    "config_sha256": result.config_sha256,
                    "folder": shown(run.folder),
                }
            )
    return records


def json_text(
    collection: Collection, rows: Sequence[Row], paired: Sequence[tuple[Row, list[PairedComparison]]], over: OverRecipes
) -> str:
    """Everything that the tables show, in full precision."""
    friedman = over.friedman
    values = {
        "schema": _AGGREGATE_SCHEMA,
        "runs": run_records(rows),
        "planned": collection.sentences,
        "tuning": [as_json(choice) for choice in collection.choices],
        "left_out": [{"folder": shown(left.folder), "reason": left.reason} for left in collection.left_out],
        "summary": summary_records(rows),
        "paired": [
            {
                "task": row.task,
                "recipe": row.recipe,
                "variant": row.variant,
                "metric": row.metric_name,
                "reference": pair.reference,
                "against": pair.other,
                "seeds": list(pair.seeds),
                "failed": list(pair.failed),
                "collapsed": list(pair.collapsed),
                "better_by": _finite(pair.difference),
                "mean_difference": _finite(pair.mean),
                "interval": list(pair.interval) if pair.interval else None,
                "interval_for_all": list(pair.together) if pair.together else None,
                "seeds_better": pair.better,
                "p_holm": pair.p,
                "verdict": pair.verdict,
            }
            for row, pairs in paired
            for pair in pairs
        ],
        "over_recipes": {
            "recipes": [row.recipe for row in over.rows],
            "activations": list(over.activations),
            "ranks": over.ranks.tolist(),
            "families": [row.family for row in over.rows],
            "mean_ranks": over.mean_ranks,
            "wins": over.wins,
            "no_test_because": over.reason or None,
            "friedman": None
            if friedman is None
            else {
                "statistic": friedman.statistic,
                "p": friedman.p,
                "critical_difference": friedman.critical_difference,
                "nemenyi": _pairs(friedman.nemenyi),
                "wilcoxon_holm": _pairs(friedman.wilcoxon_holm),
            },
        },
        "names": {name: paper_name(name) for row in rows for name in row.cells},
    }
    return json.dumps(values, indent=1, allow_nan=False) + "\n"


def _pairs(table: Any) -> dict[str, dict[str, float]] | None:
    return None if table is None else {str(name): column for name, column in table.to_dict().items()}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
