"""Runs of every task that take seconds, with several checkpoints, and what is done with their folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import detect_program
import diffusion_program
import lm_program
import translation_program
import vision_program

SHORT = {
    "digits": ["--epochs", "2", *vision_program.FAST, "--max-steps", "4"],
    "fasterrcnn-digits": [*detect_program.FAST, "--max-steps", "4"],
    "deeplabv3-digits": [*detect_program.FAST, "--max-steps", "4"],
    "babygpt-pydocs": lm_program.TINY,
    "transformer-numbers": translation_program.TINY,
    "ddpm-digits": [*diffusion_program.TINY, "--max-steps", "6"],
}
"""Flags by recipe."""


def only_run(folder: Path) -> Path:
    """The finished run below a folder."""
    (path,) = folder.rglob("result.json")
    return path.parent


def cut(folder: Path, copy: Path) -> Path:
    """A copy of an output folder in which the run was stopped before its last checkpoint; where it is."""
    shutil.copytree(folder, copy)
    run = only_run(copy)
    (run / "result.json").unlink()
    checkpoints = sorted((run / "checkpoints").iterdir())
    assert len(checkpoints) > 1
    shutil.rmtree(checkpoints[-1])
    return run
