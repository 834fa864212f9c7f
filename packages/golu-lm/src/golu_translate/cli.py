"""The console script `golu-translate`."""

from __future__ import annotations

from golu_core.training import CommandLine

from .task import TASK

COMMAND_LINE = CommandLine(TASK)


def main() -> int:
    """Run `golu-translate` and return its exit status."""
    return COMMAND_LINE.main()
