"""The console script `golu-diffusion`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from golu_core.training.cli import Command, CommandLine
from golu_core.training.finished import BatchEvaluationFlags

from .config import DiffusionConfig
from .recipes import RECIPES


def _train(config: DiffusionConfig) -> None:
    from .train import train

    train(config)


def _evaluate(folder: Path, flags: BatchEvaluationFlags) -> None:
    from .evaluate import evaluate_run

    evaluate_run(folder, flags)


def _sample_flags() -> type:
    from .sample import SampleFlags

    return SampleFlags


def _interpolate_flags() -> type:
    from .sample import InterpolateFlags

    return InterpolateFlags


def _sample(arguments: Sequence[str]) -> None:
    from .sample import sample_command

    sample_command(arguments)


def _interpolate(arguments: Sequence[str]) -> None:
    from .sample import interpolate_command

    interpolate_command(arguments)


COMMAND_LINE = CommandLine(
    program="golu-diffusion",
    recipes=RECIPES,
    train=_train,
    evaluate=_evaluate,
    evaluation_flags=lambda: BatchEvaluationFlags,
    distribution="golu-diffusion",
    commands={
        "sample": Command("images from a finished run", _sample, "RUN_DIR [flags]", _sample_flags),
        "interpolate": Command(
            "from one image to another", _interpolate, "RUN_DIR IMAGE IMAGE [flags]", _interpolate_flags
        ),
    },
)


def main() -> int:
    """Runs `golu-diffusion` and returns its exit status."""
    return COMMAND_LINE.main()
