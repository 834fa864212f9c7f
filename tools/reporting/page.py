"""The HTML report: one file that opens without a network, light or dark as the reader has it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
from markupsafe import Markup

from .collect import shown
from .figures import NamedFigure, as_inline_svg
from .summary import hardware

if TYPE_CHECKING:
    from .report import Report

_TEMPLATES = Path(__file__).parent


def html_page(report: Report, figures: Sequence[NamedFigure]) -> str:
    """The whole page.

    Args:
        report: what is said.
        figures: drawn already.
    """
    from .report import METHODS

    drawn = [(figure, Markup(as_inline_svg(figure))) for figure in figures]  # matplotlib escapes the texts in it
    machines = Counter(hardware(run) for run in report.collection.runs)
    return template("report.html.jinja").render(
        runs=len(report.collection.runs),
        recipes=len({(row.task, row.recipe) for row in report.rows}),
        machines=[processor if device == "cpu" else device for (device, processor), _ in machines.most_common()],
        result_tables=report.result_tables,
        statistics_tables=report.statistics_tables,
        findings=report.findings(),
        curves=[pair for pair in drawn if pair[0].name.startswith("curves-")],
        comparisons=[pair for pair in drawn if not pair[0].name.startswith("curves-")],
        cards=report.cards,
        methods=METHODS,
        left_out=[(shown(left.folder), left.reason) for left in report.collection.left_out],
    )


def template(name: str) -> jinja2.Template:
    """A template beside this module; what it is given is escaped."""
    loader = jinja2.FileSystemLoader(_TEMPLATES)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template(name)
