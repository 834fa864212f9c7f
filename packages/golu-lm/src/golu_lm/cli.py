"""The console script `golu-lm`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from golu_core.training.cli import Command, CommandLine
from golu_core.training.finished import BatchEvaluationFlags

from .config import LmConfig
from .recipes import RECIPES


def _train(config: LmConfig) -> None:
    from .train import train

    train(config)


def _evaluate(folder: Path, flags: BatchEvaluationFlags) -> None:
    from .evaluate import evaluate_run

    evaluate_run(folder, flags)


def _prepare_flags() -> type:
    from .prepare import PrepareFlags

    return PrepareFlags


def _generate_flags() -> type:
    from .generate import GenerateFlags

    return GenerateFlags


def _prepare(arguments: Sequence[str]) -> None:
    from .prepare import prepare_command

    prepare_command(arguments)


def _generate(arguments: Sequence[str]) -> None:
    from .generate import generate_command

    generate_command(arguments)


def _export(arguments: Sequence[str]) -> None:
    from .hugging_face import export_command

    export_command(arguments)


COMMAND_LINE = CommandLine(
    program="golu-lm",
    recipes=RECIPES,
    train=_train,
    evaluate=_evaluate,
    evaluation_flags=lambda: BatchEvaluationFlags,
    distribution="golu-lm",
    commands={
        "prepare": Command("tokenise a data set or a file", _prepare, "DATASET [flags]", _prepare_flags),
        "generate": Command("text from a finished run", _generate, "RUN_DIR [flags]", _generate_flags),
        "export": Command("a finished run's weights as a Hugging Face GPT-2", _export, "RUN_DIR OUT_DIR"),
    },
)


def main() -> int:
    """Runs `golu-lm` and returns its exit status."""
    return COMMAND_LINE.main()
