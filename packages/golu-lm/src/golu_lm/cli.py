"""The console script `golu-lm`."""

from __future__ import annotations

from golu_core.training import CommandLine

from .task import TASK

COMMAND_LINE = CommandLine(TASK)


def main() -> int:
    """Run `golu-lm` and return its exit status."""
    return COMMAND_LINE.main()
