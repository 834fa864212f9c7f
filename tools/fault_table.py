"""Makes docs/reliability.md of the table of faults that are tested.

python tools/fault_table.py > docs/reliability.md
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEAD = """# Reliability: what happens when something fails

A run is a command. Whatever ends it, the same command ends with the same bytes; what cannot be right is refused in one
message. Each line is run by tests, for all tasks where nothing else is said, on sample data and small networks. Made
by `python tools/fault_table.py`.

Kills and errors of the disk are put at the N-th change of a file by a small library
([file_faults.c](../tests/faults/file_faults.c)) that counts what a process writes, renames and removes. CI strikes a
sample of the changes of each task, and damages each file in one of the ways. Every kind of change, and every damage of
every file, in some hours on two cores:

```sh
GOLU_ALL_FAULTS=1 uv run --all-packages --group test pytest tests/faults -n 2 -m "slow or not slow"
```
"""
SECTION = """
## {title}

| what happens | what comes of it | tasks | tests |
|---|---|---|---|
{rows}
"""
TAIL = """
Not tested: a power failure (files are synchronized before they are renamed, but no test cuts the power), network file
systems that lose locks, and errors of memory or processors.

What happens to names that hold formulas, markup or terminal commands is shown in [Names](names.md).
"""


def page() -> str:
    """The whole page."""
    for name in ("core", "vision", "lm", "translate", "detect", "diffusion", "faults"):
        sys.path.append(str(ROOT / "tests" / name))
    names = ("test_between", "test_damage", "matrix", "writers")
    between, damage, matrix, writers = (import_module(name) for name in names)
    words = {
        "damages": ", ".join(damage.DAMAGES),
        "place": ", ".join(between.PLACE),
        "other": ", ".join(between.OTHER),
        "writers": ", ".join(f"`{name}`" for name in writers.WRITERS),
    }
    sections = []
    for title, faults in matrix.MATRIX.items():
        rows = [
            f"| {fault.what.format(**words)} | {fault.then} | {fault.tasks} | {', '.join(map(_link, fault.tests))} |"
            for fault in faults
        ]
        sections.append(SECTION.format(title=title, rows="\n".join(rows)))
    return HEAD + "".join(sections) + TAIL


def _link(test: str) -> str:
    path, _, _ = test.partition("::")
    return f"[{Path(path).parent.name}/{Path(path).stem}](../{path})"


if __name__ == "__main__":
    print(page(), end="")
