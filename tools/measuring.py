"""How the benchmarks measure and print."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def interleaved(
    tasks: dict[str, Callable[[], None]], rounds: int, repeats: int, settle: bool = False
) -> dict[str, list[float]]:
    """Seconds of one call of each task, `rounds` measurements of `repeats` calls, the tasks taking turns.

    Args:
        tasks: The tasks by name.
        rounds, repeats: The numbers of rounds and repeats, see above.
        settle: call a task once before each of its measurements, so that it does not pay for the memory that the task
            before it gave back to the system.
    """
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for task in tasks.values():
        task()
        task()
    for _ in range(rounds):
        for name, task in tasks.items():
            if settle:
                task()
            start = time.perf_counter()
            for _ in range(repeats):
                task()
            times[name].append((time.perf_counter() - start) / repeats)
    return times


def seconds_of(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def peak_resident_mib() -> float:
    """Most memory that this process has had, in MiB.

    Not of `getrusage`, whose number a new process inherits from the one that started it.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def markdown(rows: list[Row]) -> str:
    """The rows as a table; a column is there if any row has it."""
    columns = list(dict.fromkeys(key for row in rows for key in row if key != "quartiles_us"))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_shown(row.get(column, "")) for column in columns) + " |" for row in rows]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
