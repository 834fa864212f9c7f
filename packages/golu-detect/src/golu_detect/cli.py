"""The console script `golu-detect`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from golu_core.training.cli import Command, CommandLine
from golu_core.training.errors import RequestError
from golu_core.training.finished import EvaluationFlags

from .config import DetectConfig
from .recipes import RECIPES


def _train(config: DetectConfig) -> None:
    from .train import train

    train(config)


def _evaluate(folder: Path, flags: EvaluationFlags) -> None:
    from .evaluate import evaluate_run

    evaluate_run(folder, flags)


def _predict(arguments: Sequence[str]) -> None:
    from .predict import predict_command

    predict_command(arguments)


def _predict_flags() -> type:
    from .predict import PredictFlags

    return PredictFlags


def _sample_data(arguments: Sequence[str]) -> None:
    from .samples import write_digit_scenes

    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise RequestError("usage: golu-detect sample-data DIR")
    print(f"written: {write_digit_scenes(Path(arguments[0]))}")


COMMAND_LINE = CommandLine(
    program="golu-detect",
    recipes=RECIPES,
    train=_train,
    evaluate=_evaluate,
    evaluation_flags=lambda: EvaluationFlags,
    distribution="golu-detect",
    commands={
        "predict": Command("what a finished run sees in images", _predict, "RUN_DIR IMAGE... [flags]", _predict_flags),
        "sample-data": Command("scenes of digits in COCO's format", _sample_data, "DIR"),
    },
)


def main() -> int:
    """Runs `golu-detect` and returns its exit status."""
    return COMMAND_LINE.main()
