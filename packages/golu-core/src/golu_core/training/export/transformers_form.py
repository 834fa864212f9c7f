"""A finished run's network in the format of transformers' `save_pretrained`, with a model card."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..messages.text_sinks import say
from ..runs.finished import FinishedRun
from ..storage.output_folders import output_folder
from .model_card import Usage, write_card


def export_to_transformers(
    out: Path, write: Callable[[Path], FinishedRun[Any]], *, pipeline: str, model: str, call: str
) -> None:
    """Write a folder that `from_pretrained` loads.

    Args:
        out: The new folder.
        write: Function of a folder that writes the model and the tokenizer there, and returns their run.
        pipeline: The task's pipeline tag on the Hub, such as `text-generation`.
        model: The class in transformers, such as `AutoModelForCausalLM`.
        call: The expression that calls `model`, for the card.

    Raises:
        RequestError: `out` is not empty, or `write` raised it.
    """
    with output_folder(out, "--out") as whole:
        finished = write(whole)
        activation = finished.config.activation
        write_card(whole, finished.result, _use(activation, pipeline, model, call))
    say(f"exported: {out}")
    if activation == "golu":
        say("call golu_core.register_with_transformers() before from_pretrained")


def _use(activation: str, pipeline: str, model: str, call: str) -> Usage:
    ours = activation == "golu"
    code = [
        "import torch",
        f"from transformers import {model}",
        *(["from golu_core import register_with_transformers", "register_with_transformers()"] if ours else []),
        f'model = {model}.from_pretrained(".")',
        f"y = {call}",
    ]
    needs = "transformers, and golu-core for the activation" if ours else "transformers"
    return Usage(pipeline, "transformers", needs, code)
