"""What an analysis found: tables, figures and numbers, printed, and written if asked to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from golu_core.training.messages.text_sinks import markdown_text, say

from ..reporting.figures import NamedFigure, figure_files
from ..reporting.formats import console, markdown, print_table
from ..reporting.report import check_report_folder, write_report
from ..reporting.tables import Table

_ANALYSIS_SCHEMA = "golu-analysis/1"


@dataclass(frozen=True)
class Findings:
    """What an analysis found.

    Attributes:
        name: The name of the analysis.
        tables: The tables to print.
        figures: The figures to draw.
        numbers: all of it in full precision, as JSON values.
        cannot_show: sentences on what the analysis does not tell; empty ones are passed over.
        pages: HTML, by name without a suffix.
    """

    name: str
    tables: Sequence[Table]
    figures: Sequence[NamedFigure]
    numbers: Mapping[str, Any]
    cannot_show: Sequence[str]
    pages: Mapping[str, str] = field(default_factory=dict)


def show(findings: Findings, out: Path | None, figures: str) -> None:
    """Prints the tables, and writes figures, tables and numbers to a folder if one is named.

    Args:
        findings: The findings of an analysis.
        out: folder; None writes nothing.
        figures: `png`, `pdf` or `svg`.

    Raises:
        RequestError: the folder holds something else than a report.
    """
    output = console()
    for table in findings.tables:
        print_table(table, output)
    cannot_show = [sentence for sentence in findings.cannot_show if sentence]
    for sentence in cannot_show:
        output.print(sentence)
    if out is None:
        return
    check_report_folder(out)
    numbers = {"schema": _ANALYSIS_SCHEMA, "analysis": findings.name, **findings.numbers}
    text = "\n".join([*map(markdown, findings.tables), *map(markdown_text, cannot_show), ""])
    files = {
        f"{findings.name}.json": (json.dumps(numbers, indent=1, allow_nan=False) + "\n").encode(),
        f"{findings.name}.md": text.encode(),
        **figure_files(findings.figures, figures),
        **{f"{name}.html": page.encode() for name, page in findings.pages.items()},
    }
    write_report(out, files)
    say(f"written: {len(files)} files in {out}")
