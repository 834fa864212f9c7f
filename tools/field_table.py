"""Makes docs/fields.md of what the test that changes every field of every recipe has found.

GOLU_FLIPS=flips.jsonl uv run --all-packages --group test pytest tests/*/test_flips.py -m "slow or not slow"
python tools/field_table.py flips.jsonl > docs/fields.md
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from pathlib import Path

HEAD = """# Fields: what a change of each does

`tests/*/test_flips.py` changes each field of the recipes, one at a time, on shortened runs. A run whose identity
(its config and its data) is another must have other numbers. One whose identity is the same must have the same numbers,
bit for bit. Everything else is refused. A row counts how often each outcome was seen.
Made by `python tools/field_table.py`.

| field | outcome |
|---|---|
"""


def table(lines: list[str]) -> str:
    """The page, from the lines that the tests wrote."""
    found: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for line in lines:
        entry = json.loads(line)
        found[entry["task"], entry["path"]][entry["outcome"]] += 1
    rows = [
        f"| {task}: `{path}` | {', '.join(f'{outcome} ({count})' for outcome, count in sorted(counts.items()))} |"
        for (task, path), counts in sorted(found.items())
    ]
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(table(Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()), end="")
