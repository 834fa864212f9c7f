"""The console script `golu-vision`."""

from __future__ import annotations

from pathlib import Path

from golu_core.training.cli import CommandLine
from golu_core.training.finished import BatchEvaluationFlags

from .config import VisionConfig
from .recipes import RECIPES


def _train(config: VisionConfig) -> None:
    from .train import train

    train(config)


def _evaluate(folder: Path, flags: BatchEvaluationFlags) -> None:
    from .evaluate import evaluate_run

    evaluate_run(folder, flags)


COMMAND_LINE = CommandLine(
    program="golu-vision",
    recipes=RECIPES,
    train=_train,
    evaluate=_evaluate,
    evaluation_flags=lambda: BatchEvaluationFlags,
    distribution="golu-vision",
    commands={},
)


def main() -> int:
    """Runs `golu-vision` and returns its exit status."""
    return COMMAND_LINE.main()
