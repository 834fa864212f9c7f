"""Writes the tables of ingredients into docs/reproduction.md, of the values that the tests compare with our recipes.

uv run --all-packages --group test python tools/ingredient_table.py
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "core"))
PAGE = ROOT / "docs" / "reproduction.md"
START, END = "<!-- ingredients: begin -->", "<!-- ingredients: end -->"


def tables() -> str:
    """Return a table for each group of recipes: what was published, what is here, and why where the two differ."""
    groups = import_module("published_ingredients").PUBLISHED
    return "\n\n".join(_table(title, group) for title, group in groups.items())


def _table(title: str, group: dict[str, Any]) -> str:
    rows: dict[tuple[str, str, str, str], list[str]] = {}
    for name, row in group.items():
        for cells in _cells(row):
            rows.setdefault(cells, []).append(name)
    order = list(dict.fromkeys(cells[0] for cells in rows))
    lines = [f"### {title}", "", "| ingredient | published | here | why |", "|---|---|---|---|"]
    for ingredient, published, here, why in sorted(rows, key=lambda cells: order.index(cells[0])):
        of = _some(rows[ingredient, published, here, why], list(group))
        lines.append(f"| {ingredient}{of} | {published} | {here} | {why} |")
    return "\n".join(lines)


def _some(names: list[str], group: list[str]) -> str:
    """Which recipes of a group a line is about, without the data set that ends all their names."""
    data_sets = {name.rpartition("-")[2] for name in group}
    short = {name: name.rpartition("-")[0] if len(data_sets) == 1 else name for name in group}
    if len(names) == len(group):
        return ""
    others = [short[name] for name in group if name not in names]
    but = f"all but {', '.join(others)}" if len(others) < len(names) else ", ".join(short[name] for name in names)
    return f" ({but})"


def _cells(row: Any) -> list[tuple[str, str, str, str]]:
    values = {**row.values, "learning rate": row.rates, **row.seeing}
    return [
        (key, value, "the same", "") if isinstance(value, str) else (key, value.published, value.here, value.why)
        for key, value in values.items()
    ]


def main() -> None:
    """Replace the tables between the two marks of the page."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(START)
    _, after = rest.split(END)
    PAGE.write_text(f"{before}{START}\n\n{tables()}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
