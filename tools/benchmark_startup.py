"""How long the command lines take before they do their work: whole processes, start of Python included."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median

from golu_core.training.tasks.task import installed_tasks
from measuring import Row, seconds_of

_ROUNDS = 5
# by task: its quick recipe, and flags that make a run a matter of seconds
_TASKS = {
    "vision": ("digits", ["--batch-size", "16"]),
    "lm": ("babygpt-pydocs", ["--eval-sequences", "4", "--sample-tokens", "1"]),
    "translation": ("transformer-numbers", ["--eval-sentences", "4"]),
    "detect": ("fasterrcnn-digits", ["--batch-size", "2"]),
    "diffusion": ("ddpm-digits", ["--samples", "0", "--eval-noise-draws", "1"]),
}


def startup_rows() -> list[Row]:
    """Seconds of each command of each task, the median of five runs in a new process each."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for task, (recipe, quick) in _TASKS.items():
            _run(task, folder, "train", recipe, "--max-steps", "2", *quick)
            commands = {
                "--help": ["--help"],
                "recipes": ["recipes"],
                "a wrong flag": ["train", recipe, "--nonsense", "1"],
                "train --help": ["train", recipe, "--help"],
                "train --dry-run": ["train", recipe, "--dry-run"],
                "train, already finished": ["train", recipe, "--max-steps", "2", *quick],
                "evaluate": ["evaluate", f"runs/{task}/{recipe}/golu/seed0"],
            }
            for what, arguments in commands.items():
                seconds = [seconds_of(partial(_run, task, folder, *arguments)) for _ in range(_ROUNDS)]
                rows.append({"task": task, "command": what, "seconds": median(seconds)})
    return rows


def _run(task: str, folder: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", installed_tasks()[task].package, *arguments]
    subprocess.run(command, cwd=folder, capture_output=True, check=False)
