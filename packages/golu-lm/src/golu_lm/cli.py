"""The console script `golu-lm`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from golu_core.training.cli import Command, CommandLine

from .config import LmConfig
from .recipes import RECIPES


def _train(config: LmConfig) -> None:
    from .train import train

    train(config)


def _evaluate(folder: Path, arguments: Sequence[str]) -> None:
    from .evaluate import evaluate_run

    evaluate_run(folder, arguments)


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
    distribution="golu-lm",
    commands={
        "prepare": Command("tokenise a data set or a file", _prepare, "DATASET [flags]"),
        "generate": Command("text from a finished run", _generate, "RUN_DIR [flags]"),
        "export": Command("a finished run's weights as a Hugging Face GPT-2", _export, "RUN_DIR OUT_DIR"),
    },
)


def main() -> int:
    """Runs `golu-lm` and returns its exit status."""
    return COMMAND_LINE.main()
