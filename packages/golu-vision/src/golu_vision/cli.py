"""The console script `golu-vision`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from golu_core.training.cli import CommandLine

from .config import VisionConfig
from .recipes import RECIPES


def _train(config: VisionConfig) -> None:
    from .train import train

    train(config)


def _evaluate(folder: Path, arguments: Sequence[str]) -> None:
    from .evaluate import evaluate_run

    evaluate_run(folder, arguments)


COMMAND_LINE = CommandLine(
    program="golu-vision", recipes=RECIPES, train=_train, evaluate=_evaluate, distribution="golu-vision", commands={}
)


def main() -> int:
    """Runs `golu-vision` and returns its exit status."""
    return COMMAND_LINE.main()
