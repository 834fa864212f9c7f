"""The report's figures, by matplotlib: readable on a light and on a dark page."""

from __future__ import annotations

import html
import io
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from golu_core.regular_files import regular_bytes
from golu_core.training.figures.drawing import new_figure
from golu_core.training.messages.text_sinks import file_name, visible
from golu_core.training.runs.run_files import METRICS_FILE

from .choices import Choice
from .comparison import OverRecipes
from .looks import color, look, told_apart
from .metrics import in_table_order, metric_of, paper_name
from .paired import FEWEST_SEEDS, PairedComparison
from .summary import Row, relative_times

_INK = "#16181d"  # becomes the page's own color of text
_STYLE: Any = {
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.alpha": 0.18,
    "grid.color": _INK,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


@dataclass(frozen=True)
class NamedFigure:
    """A figure of the report.

    Attributes:
        name: which its file has, as far as file systems allow, without a suffix.
        title: The title, which is also the text for those who cannot see the figure.
        caption: how to read it.
        figure: matplotlib's.
    """

    name: str
    title: str
    caption: str
    figure: Figure


def all_figures(
    rows: Sequence[Row],
    over: OverRecipes,
    paired: Sequence[tuple[Row, Sequence[PairedComparison]]],
    reference: str,
    choices: Mapping[str, Sequence[Choice]],
) -> list[NamedFigure]:
    """The figures that the runs give: effects, curves and tuning of each recipe, ranks, critical differences, times."""
    with matplotlib.rc_context(_STYLE), told_apart(name for row in rows for name in row.cells):
        found = [forest(paired, reference), *(curves(row) for row in rows if row.is_primary)]
        found += [tuning_figure(recipe, group) for recipe, group in choices.items()]
        found += [ranks(over), _critical_differences(over), times(rows)]
    return [figure for figure in found if figure is not None]


# ------------------------------------------------------------------------------------------------------------- curves


def curves(row: Row) -> NamedFigure | None:
    """The test metric over steps: mean over seeds, and the band from the lowest to the highest seed."""
    points = _points(row)
    if not points:
        return None
    figure = new_figure(6.4, 3.4)
    axes = figure.add_subplot()
    for activation in in_table_order(points):
        by_step = points[activation]
        steps = sorted(by_step)
        means = [math.fsum(by_step[step]) / len(by_step[step]) for step in steps]
        ours = activation == "golu"
        style: dict[str, Any] = {
            "color": color(activation),
            "linestyle": look(activation).dash,
            "linewidth": 2.2 if ours else 1.3,
            "zorder": 3 if ours else 2,
        }
        marker = look(activation).marker if len(steps) < 8 else ""
        axes.plot(steps, means, label=paper_name(activation), marker=marker, markersize=4, **style)
        if any(len(values) > 1 for values in by_step.values()):
            low, high = [min(by_step[s]) for s in steps], [max(by_step[s]) for s in steps]
            axes.fill_between(steps, low, high, color=color(activation), alpha=0.13, linewidth=0)
    values = [value for by_step in points.values() for listed in by_step.values() for value in listed]
    if min(values) > 0 and max(values) > 8 * min(values) and not row.metric.higher_is_better:
        axes.set_yscale("log")
    axes.set(xlabel="optimizer step", ylabel=f"test {row.metric.label}")
    axes.grid(True)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return NamedFigure(
        name=f"curves-{row.name}",
        title=f"{row.name}: test {row.metric.label} over training",
        caption="Mean over seeds; the band goes from the lowest to the highest seed.",
        figure=figure,
    )


def tuning_figure(recipe: str, choices: Sequence[Choice]) -> NamedFigure | None:
    """Return the figure of a recipe; None where not exactly one number was tuned.

    Args:
        recipe: The recipe, and what of it was varied.
        choices: Its choices, in the order of tables.
    """
    flags = {flag for choice in choices for flag in choice.setting}
    values = [value for choice in choices for trial in choice.trials for value in trial.setting.values()]
    if len(flags) != 1 or not all(isinstance(value, (int, float)) and value > 0 for value in values):
        return None
    (flag,) = flags
    metric = metric_of(choices[0].task, choices[0].metric, choices[0].higher_is_better)
    figure = new_figure(6.4, 3.4)
    axes = figure.add_subplot()
    for choice in choices:
        finite = {trial.setting[flag]: [v for v in trial.values.values() if v is not None] for trial in choice.trials}
        drawn = sorted((value, found) for value, found in finite.items() if found)
        places = [value for value, _ in drawn]
        style: dict[str, Any] = {"color": color(choice.activation), "linestyle": look(choice.activation).dash}
        label, marker = paper_name(choice.activation), look(choice.activation).marker
        medians = [statistics.median(found) for _, found in drawn]
        axes.plot(places, medians, label=label, marker=marker, markersize=4, linewidth=1.5, **style)
        low, high = [min(found) for _, found in drawn], [max(found) for _, found in drawn]
        axes.fill_between(places, low, high, color=color(choice.activation), alpha=0.13, linewidth=0)
        chosen = choice.chosen.median(choice.higher_is_better)
        if math.isfinite(chosen):
            axes.plot([choice.setting[flag]], [chosen], marker="o", markersize=11, fillstyle="none", **style)
    axes.axvline(choices[0].trials[0].setting[flag], color="#888888", linewidth=0.8, linestyle=":")
    axes.set(xscale="log", xlabel=flag, ylabel=f"{metric.label}, held-out data")
    axes.grid(True)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    seeds = len(choices[0].trials[0].values)
    return NamedFigure(
        name=f"tuning-{recipe}",
        title=f"{recipe}: {metric.label} on held-out training data over {flag}",
        caption=f"Median of {seeds} pilot seeds; the band goes from the lowest to the highest. Circles: the chosen "
        "values. Dotted: the recipe's own value.",
        figure=figure,
    )


def _points(row: Row) -> dict[str, dict[int, list[float]]]:
    """Finite test metrics of the runs by activation and step."""
    points: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in row.runs:
        for line in read_test_metrics(run.folder):
            value = line.get(row.metric_name)
            if isinstance(value, (int, float)) and math.isfinite(value):
                points[run.result.activation][int(line["step"])].append(value)
    return points


def read_test_metrics(folder: Path) -> Iterator[dict[str, Any]]:
    """The test lines of a run's metrics.jsonl; none where it is missing, and without lines that are torn."""
    try:
        lines = regular_bytes(folder / METRICS_FILE).decode("utf-8", "replace").splitlines()
    except OSError:
        return
    for line in lines:
        if '"test"' in line:
            try:
                values = json.loads(line)
            except ValueError:
                continue
            if values.get("split") == "test":
                yield values


# ------------------------------------------------------------------------------------------------------- comparisons


def forest(paired: Sequence[tuple[Row, Sequence[PairedComparison]]], reference: str) -> NamedFigure | None:
    """Effects with intervals over recipes, as percent of the other activation's mean; None where there is none."""
    rows = [(row, _effects(row, pairs)) for row, pairs in paired if row.is_primary]
    rows = [(row, effects) for row, effects in rows if effects]
    if not rows:
        return None
    others = in_table_order({other for _, effects in rows for other in effects})
    figure = new_figure(7.0, 1.0 + 0.22 * len(rows) * (len(others) + 1))
    axes = figure.add_subplot()
    axes.axvline(0, color=_INK, linewidth=0.8)
    ticks = []
    for number, (_, effects) in enumerate(rows):
        top = -number * (len(others) + 1.0)
        ticks.append(top - (len(others) - 1) / 2)
        for place, other in enumerate(others):
            if other in effects:
                middle, low, high = effects[other]
                axes.plot([low, high], [top - place] * 2, color=color(other), linewidth=1.6)
                axes.plot([middle], [top - place], look(other).marker, color=color(other), markersize=4.5)
    for other in others:
        marker, label = look(other).marker, f"against {paper_name(other)}"
        axes.plot([], [], marker, linestyle="-", color=color(other), markersize=4.5, label=label)
    axes.set_yticks(ticks, [row.name for row, _ in rows])
    axes.set_xlabel(f"{paper_name(reference)} better by, % of the other's mean (left of 0: worse)")
    axes.grid(True, axis="x")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    seeds = sorted({len(pair.seeds) for _, pairs in paired for pair in pairs})
    caption = (
        f"Estimates with 95 % intervals over {seeds[0]}{'' if len(seeds) == 1 else f' to {seeds[-1]}'} seeds, each by "
        f"itself, corrected for nothing: Hodges and Lehmann's, or with fewer than 6 seeds the mean with Student's t."
    )
    return NamedFigure("effects", "All effects", caption, figure)


def _effects(row: Row, pairs: Sequence[PairedComparison]) -> dict[str, tuple[float, float, float]]:
    """Estimate and interval in percent of the other's mean, by the other's name."""
    found = {}
    for pair in pairs:
        scale = abs(row.cells[pair.other].mean)
        middle = pair.mean if len(pair.seeds) < FEWEST_SEEDS else pair.difference  # as its interval
        if pair.interval is not None and scale > 0 and math.isfinite(middle):
            low, high = pair.interval
            found[pair.other] = (100 * middle / scale, 100 * low / scale, 100 * high / scale)
    return found


def ranks(over: OverRecipes) -> NamedFigure | None:
    """Mean rank of each activation, and its rank in each recipe."""
    if not over.rows:
        return None
    ordered = sorted(over.mean_ranks.items(), key=lambda item: -item[1])
    figure = new_figure(6.4, 0.8 + 0.36 * len(ordered))
    axes = figure.add_subplot()
    columns = dict(zip(over.activations, over.ranks.T.tolist(), strict=True))
    for place, (activation, mean) in enumerate(ordered):
        offsets = [place + 0.16 * math.sin(2.4 * n) for n in range(len(over.rows))]  # so that equal ranks are seen
        axes.scatter(columns[activation], offsets, s=22, color=color(activation), alpha=0.55, linewidth=0)
        axes.plot([mean], [place], "D", color=color(activation), markersize=7)
        axes.annotate(f"{mean:.2f}", (mean, place), textcoords="offset points", xytext=(0, 8), ha="center", fontsize=8)
    axes.set_yticks(range(len(ordered)), [paper_name(name) for name, _ in ordered])
    axes.set(xlabel="rank (1 is the best)", xlim=(0.7, len(ordered) + 0.3), ylim=(-0.6, len(ordered) - 0.2))
    axes.set_xticks(range(1, len(ordered) + 1))
    axes.grid(True, axis="x")
    caption = f"Diamonds: mean over {over.counted}; dots: single recipes. A description, not a test."
    return NamedFigure("ranks", "Rank of each activation", caption, figure)


def _critical_differences(over: OverRecipes) -> NamedFigure | None:
    """Demsar's diagram: activations that a bar joins are not told apart; None where there is no test."""
    friedman = over.friedman
    if friedman is None or not friedman.rejects:
        return None
    import scikit_posthocs

    names = {name: visible(paper_name(name)) for name in over.activations}
    figure = new_figure(6.8, 1.1 + 0.3 * len(names))
    axes = figure.add_subplot()
    with matplotlib.rc_context({"text.parse_math": False}):  # it measures its texts
        scikit_posthocs.critical_difference_diagram(
            {names[name]: rank for name, rank in over.mean_ranks.items()},
            friedman.nemenyi.rename(index=names, columns=names),
            ax=axes,
            label_fmt_left="{label} ({rank:.2f})",
            label_fmt_right="({rank:.2f}) {label}",
            elbow_props={"linewidth": 1},
            crossbar_props={"color": _INK, "linewidth": 2.5},
            color_palette={names[name]: color(name) for name in over.activations},
            text_h_margin=0.12,
        )
    caption = (
        f"Mean ranks over {over.counted}, 1 the best. Nemenyi's test at 0.05 does not tell apart activations "
        f"that a bar joins; mean ranks that are {friedman.critical_difference:.2f} apart are told apart."
    )
    return NamedFigure("critical-difference", "Critical-difference diagram", caption, figure)


def times(rows: Sequence[Row]) -> NamedFigure | None:
    """Training time relative to the architecture's own activation."""
    found = [(row, times) for row in rows if row.is_primary for times in [relative_times(row)[0]] if times]
    if not found:
        return None
    activations = in_table_order({name for _, relative in found for name in relative})
    figure = new_figure(6.4, max(1.0 + 0.3 * len(found), 0.3 + 0.2 * len(activations)))
    axes = figure.add_subplot()
    axes.axvline(1.0, color=_INK, linewidth=0.8)
    for place, (_, relative) in enumerate(reversed(found)):
        for activation, time in relative.items():
            axes.plot([time.training], [place], look(activation).marker, color=color(activation), alpha=0.9)
    for activation in activations:
        axes.plot([], [], look(activation).marker, color=color(activation), label=paper_name(activation))
    axes.set_yticks(range(len(found)), [row.name for row, _ in reversed(found)])
    axes.set(xlabel="training time, own activation = 1", ylim=(-0.6, len(found) - 0.4))
    axes.grid(True, axis="x")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    caption = "Seconds of an optimizer step as a multiple of the architecture's own activation, on the same hardware."
    return NamedFigure("relative-time", "Relative training time", caption, figure)


# ------------------------------------------------------------------------------------------------------------- output


def figure_files(figures: Sequence[NamedFigure], kind: str) -> dict[str, bytes]:
    """The figures as PNG, PDF or SVG, by the names of their files."""
    files: dict[str, bytes] = {}
    for named in figures:
        stem = file_name(named.name, taken=(Path(other).stem for other in files))
        files[f"{stem}.{kind}"] = as_bytes(named, kind)
    return files


def as_bytes(named: NamedFigure, kind: str) -> bytes:
    """The figure as PNG, PDF or SVG on white, the same bytes for the same figure."""
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": visible(named.name)}):
        buffer = io.BytesIO()
        dates: dict[str, Any] = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
        named.figure.savefig(buffer, format=kind, dpi=160, facecolor="white", metadata=dates[kind])
        return buffer.getvalue()


def as_inline_svg(named: NamedFigure) -> str:
    """The figure as an SVG element that takes the page's color of text."""
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": visible(named.name)}):
        text = io.StringIO()
        named.figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue().replace(_INK, "currentColor")
    label = html.escape(visible(named.title), quote=True)
    return f'<svg role="img" aria-label="{label}"' + svg[svg.index("<svg") + len("<svg") :]


@contextmanager
def plain_style() -> Iterator[None]:
    """The report's style, for figures that are drawn elsewhere."""
    with matplotlib.rc_context(_STYLE):
        yield
