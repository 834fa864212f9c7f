"""The HTML report: one file that opens without a network, light or dark as the reader has it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from golu_core.training.messages.text_sinks import html_text

from .card import Card
from .collect import LeftOut, RunResult, shown
from .figures import NamedFigure, as_inline_svg
from .summary import hardware
from .tables import Table

_TEMPLATES = Path(__file__).parent


@dataclass(frozen=True)
class PageContent:
    """What the page says.

    Attributes:
        runs: The number of runs in the tables.
        recipes: how many recipes they are of.
        answer: the sentences that it opens with.
        result_tables, statistics_tables, findings, cards, methods: The same as in the report.
        left_out: results that are in no table.
    """

    runs: Sequence[RunResult]
    recipes: int
    answer: Sequence[str]
    result_tables: Sequence[Table]
    statistics_tables: Sequence[Table]
    findings: Sequence[str]
    cards: Sequence[Card]
    methods: Sequence[tuple[str, str]]
    left_out: Sequence[LeftOut]


def html_page(content: PageContent, figures: Sequence[NamedFigure]) -> str:
    """The whole page.

    Args:
        content: The content of the page.
        figures: drawn already.
    """
    drawn = [(figure, Markup(as_inline_svg(figure))) for figure in figures]  # matplotlib escapes the texts in it
    machines = Counter(hardware(run) for run in content.runs)
    return template("report.html.jinja").render(
        runs=len(content.runs),
        recipes=content.recipes,
        answer=content.answer,
        effects=[pair for pair in drawn if pair[0].name == "effects"],
        machines=[processor if device == "cpu" else device for (device, processor), _ in machines.most_common()],
        result_tables=content.result_tables,
        statistics_tables=content.statistics_tables,
        findings=content.findings,
        curves=[pair for pair in drawn if pair[0].name.startswith("curves-")],
        comparisons=[pair for pair in drawn if not pair[0].name.startswith(("curves-", "effects"))],
        cards=content.cards,
        methods=content.methods,
        left_out=[(shown(left.folder), left.reason) for left in content.left_out],
    )


def template(name: str) -> jinja2.Template:
    """A template beside this module; what it is given is escaped."""
    loader = jinja2.FileSystemLoader(_TEMPLATES)
    environment = jinja2.Environment(
        loader=loader,
        autoescape=True,
        finalize=html_text,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(name)
