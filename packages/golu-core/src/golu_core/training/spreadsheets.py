"""Tables as CSV that a spreadsheet opens as it is, and computes nothing of."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would compute


def csv_text(records: Sequence[Mapping[str, Any]]) -> str:
    """Records as CSV with a line of headings."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=[harmless(name) for name in records[0]], lineterminator="\n")
    writer.writeheader()
    writer.writerows({harmless(name): harmless(value) for name, value in record.items()} for record in records)
    return text.getvalue()


def harmless(value: Any) -> Any:
    """A text as it is, but not as a formula that a spreadsheet would compute."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
