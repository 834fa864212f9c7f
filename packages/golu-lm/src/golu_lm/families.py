"""The two families of recipes, language models and translators: which code trains and evaluates each."""

from __future__ import annotations

from pathlib import Path

import torch

from golu_core.training import RequestError
from golu_core.training.runs import read_fields, read_recipe
from golu_core.training.tasks import Probe, Workload

from .config import LmConfig
from .recipes import RECIPES
from .translation.config import TranslationConfig
from .translation.flags import TranslationEvaluationFlags


def train(config: LmConfig | TranslationConfig) -> None:
    """Trains a recipe of either family."""
    if isinstance(config, TranslationConfig):
        from .translation.train import train_translator

        train_translator(config)
    else:
        from .train import train as train_language_model

        train_language_model(config)


def evaluate(folder: Path, flags: TranslationEvaluationFlags) -> None:
    """Prints the test metrics of a run of either family.

    Raises:
        RequestError: there is no finished run, or a flag has no effect on it.
    """
    if is_translator(folder):
        from .translation.evaluate import evaluate_translator

        evaluate_translator(folder, flags)
        return
    for name in ("source", "reference", "beam", "length_penalty"):
        if getattr(flags, name) is not None:
            raise RequestError(f"--{name.replace('_', '-')} has no effect on a language model: leave it out")
    from .evaluate import evaluate_run

    evaluate_run(folder, flags)


def probe(folder: Path, samples: int, data_dir: Path | None) -> Probe:
    """A language model on windows of its test split; RequestError for a translator's run."""
    from .probe import language_model_probe

    if is_translator(folder):
        raise RequestError(f"{folder} is a translator's run, and only language models can be analyzed this way")
    return language_model_probe(folder, samples, data_dir)


def workload(config: LmConfig | TranslationConfig, samples: int, device: torch.device) -> Workload:
    """A network of either family on random tokens; see `golu_core.training.tasks.workloads.MakeWorkload`."""
    from .workload import language_model_workload, translator_workload

    if isinstance(config, TranslationConfig):
        return translator_workload(config, samples, device)
    return language_model_workload(config, samples, device)


def is_translator(folder: Path) -> bool:
    """Whether a run folder is of a translator; RequestError if it is not a run folder."""
    known = RECIPES.get(read_recipe(folder))
    if known is not None:
        return isinstance(known, TranslationConfig)
    return "label_smoothing" in read_fields(folder)  # which of the two only translators have


def require_language_model(folder: Path, command: str) -> None:
    """Raises RequestError if a run folder is of a translator."""
    if is_translator(folder):
        raise RequestError(
            f"{folder} is a translator's run, and {command} is for language models: use golu-lm translate"
        )


def require_translator(folder: Path) -> None:
    """Raises RequestError if a run folder is of a language model."""
    if not is_translator(folder):
        raise RequestError(f"{folder} is a language model's run: golu-lm generate continues a text with it")
