"""Show a single run, finished or not: its curves and tables."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from golu_core.regular_files import regular_json, regular_text
from golu_core.training.figures.drawing import new_figure
from golu_core.training.messages.errors import RequestError
from golu_core.training.messages.text_sinks import csv_text, say
from golu_core.training.runs.results import RESULT_FILE
from golu_core.training.runs.run_files import CONFIG_FILE, METRICS_FILE

from .collect import collect
from .figures import NamedFigure, as_bytes, as_inline_svg, plain_style
from .formats import console, markdown, print_table
from .looks import color
from .metrics import metric_label, paper_name
from .page import template
from .report import write_report
from .tables import Table, TableCell, TableRow

_LINES_SHOWN = 12
_CURVES = {"train": "-", "test": "o-"}
_NOT_METRICS = {"step", "epoch", "split", "seconds"}


def show_run(folder: Path, out: Path | None) -> None:
    """Prints a run's tables, and writes `run.html`, `run.md`, `run.csv` and `curves.png` to `out` if it is given.

    Raises:
        RequestError: the folder holds no run, or its files cannot be read.
    """
    lines = _metric_lines(folder)
    title, facts = _facts(folder)
    tables = [_facts_table(facts), _test_table(lines)]
    figure = _curves(title, lines)
    files = None
    if out is not None:
        drawn = [(figure, Markup(as_inline_svg(figure)))]
        page = template("run.html.jinja").render(title=title, tables=tables, figures=drawn)
        files = {
            "run.html": page.encode(),
            "run.md": "\n".join(map(markdown, tables)).encode(),
            "run.csv": csv_text(_flat(lines)).encode(),
            "curves.png": as_bytes(figure, "png"),
        }
    output = console()
    output.print(title, style="bold")
    for table in tables:
        print_table(table, output)
    if out is not None and files is not None:
        write_report(out, files)
        say(f"written: {out}/run.html and {len(files) - 1} files beside it")


def _metric_lines(folder: Path) -> list[dict[str, Any]]:
    path = folder / METRICS_FILE
    try:
        texts = regular_text(path).splitlines()
    except FileNotFoundError:
        raise RequestError(f"{folder} is not a run folder: it has no {METRICS_FILE}") from None
    except (OSError, ValueError) as error:
        raise RequestError(f"{path} cannot be read: {error}") from None
    lines = []
    for number, text in enumerate(texts, 1):
        try:
            line = json.loads(text)
            lines.append({**line, "step": int(line["step"]), "split": str(line["split"])})
        except (ValueError, KeyError, TypeError):
            if number < len(texts):  # the last one may be torn, while the run goes on
                raise RequestError(f"{path}: line {number} is malformed") from None
    if not any(line["split"] in _CURVES for line in lines):
        raise RequestError(f"{path} has no metrics of a step: the run has not written its first metrics yet")
    return lines


def _facts(folder: Path) -> tuple[str, list[tuple[str, str]]]:
    """The run's name, and what is to be said of it."""
    if not (folder / RESULT_FILE).exists():
        try:
            config = regular_json(folder / CONFIG_FILE)
            name = f"{config['recipe']}, {paper_name(config['activation'])}, seed {config['seed']}"
        except (OSError, ValueError, KeyError, TypeError):
            raise RequestError(f"{folder} is not a run folder: it has no {CONFIG_FILE} that can be read") from None
        return name, [("state", "not finished: the command that trains it continues it")]
    collection = collect([folder])
    if not collection.runs:
        raise RequestError(str(collection.left_out[0]))
    result = collection.runs[0].result
    name = f"{result.recipe}, {paper_name(result.activation)}, seed {result.seed}"
    metrics = [(metric_label(metric), f"{value:.6g}") for metric, value in result.metrics.items()]
    best = result.best.get(result.primary_metric.name)
    return name, [
        *metrics,
        (f"best {result.primary_metric.name} of any evaluation", "–" if best is None else f"{best:.6g}"),
        ("model", f"{result.model}, {result.parameters:,} parameters"),
        ("data", result.dataset),
        ("steps", f"{result.steps:,}"),
        ("training, evaluation", f"{result.train_seconds:,.1f} s, {result.eval_seconds:,.1f} s"),
        ("throughput", f"{result.throughput.value:,.1f} {result.throughput.unit}"),
        ("device", f"{result.world_size} x {result.environment.get('device', 'unknown')}"),
    ]


def _facts_table(facts: Sequence[tuple[str, str]]) -> Table:
    rows = [TableRow((name,), (TableCell(text),)) for name, text in facts]
    return Table("Result", ("",), ("",), rows)


def _test_table(lines: Sequence[dict[str, Any]]) -> Table:
    """The last test metrics."""
    tests = [line for line in lines if line["split"] == "test"]
    names = list(dict.fromkeys(name for line in tests for name in line if name not in _NOT_METRICS))
    table = Table("Test metrics", ("step", "epoch"), tuple(map(metric_label, names)))
    for line in tests[-_LINES_SHOWN:]:
        cells = tuple(TableCell(f"{line[name]:.6g}" if name in line else "–") for name in names)
        table.rows.append(TableRow((f"{line['step']:,}", str(line.get("epoch", "–"))), cells))
    if len(tests) > _LINES_SHOWN:
        table.notes.append(f"The last {_LINES_SHOWN} of {len(tests)} evaluations.")
    if not tests:
        table.notes.append("No evaluation yet.")
    return table


def _curves(title: str, lines: Sequence[dict[str, Any]]) -> NamedFigure:
    """Each value of the metrics that was taken more than once over steps, training and test together."""
    drawn = [line for line in lines if line["split"] in _CURVES]
    counts = Counter(name for line in drawn for name in line if name not in _NOT_METRICS)
    names = [name for name, count in counts.items() if count > 1] or list(counts)
    rows = (len(names) + 1) // 2
    with plain_style():
        figure = new_figure(9, 2.6 * rows)
        for place, name in enumerate(names):
            axes = figure.add_subplot(rows, 2, place + 1)
            for split, style in _CURVES.items():
                points = [(line["step"], line[name]) for line in lines if line["split"] == split and name in line]
                if points:
                    shade = color("relu") if split == "train" else color("golu")
                    axes.plot(*zip(*points, strict=True), style, label=split, markersize=3, color=shade)
            axes.set(ylabel=metric_label(name), xlabel="optimizer step")
            axes.grid(True)
            axes.legend()
    return NamedFigure("curves", title, "Every value of metrics.jsonl over optimizer steps.", figure)


def _flat(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines with the same fields in each."""
    names = list(dict.fromkeys(name for line in lines for name in line))
    return [{name: line.get(name, "") for name in names} for line in lines]
