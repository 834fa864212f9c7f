"""The console script `golu-diffusion`."""

from __future__ import annotations

from golu_core.training import CommandLine

from .task import TASK

COMMAND_LINE = CommandLine(TASK)


def main() -> int:
    """Run `golu-diffusion` and return its exit status."""
    return COMMAND_LINE.main()
