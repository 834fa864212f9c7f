"""`golu-translate export`: export the network and tokenizer of a finished run for transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from golu_core.training import FinishedRun, RequestError
from golu_core.training.export import export_to_transformers
from golu_core.training.messages import complain
from golu_core.training.tasks import parsed_run_flags

from .config import TranslationConfig
from .evaluate import run_codec
from .hugging_face import to_fsmt, to_fsmt_tokenizer
from .model import Translator
from .pairs_folder import Cutting
from .parallel_text import Languages


@dataclass(frozen=True)
class TranslatorExportFlags:
    """Export the model and the tokenizer of a finished run."""

    out: Path
    """New folder for the network, its tokenizer and its card."""
    format: Literal["safetensors"] = "safetensors"
    """A translator is a network and a search, which only transformers' own form keeps together."""


def export_command(arguments: Sequence[str]) -> None:
    """Run `golu-translate export RUN_DIR --out DIR`.

    Raises:
        RequestError: The request is invalid, transformers is not installed, or it lacks the activation.
    """
    folder, flags = parsed_run_flags(TranslatorExportFlags, arguments, "golu-translate export")
    export_to_transformers(
        flags.out,
        partial(_export_fsmt, folder),
        pipeline="translation",
        model="FSMTForConditionalGeneration",
        call="model.generate(torch.tensor([[4, 2], [5, 2]]))",
    )


def _export_fsmt(folder: Path, out: Path) -> FinishedRun[TranslationConfig]:
    """Write the run's evaluated weights as a Hugging Face FSMT."""
    finished = FinishedRun.at(folder, TranslationConfig)
    config = finished.config
    codec = run_codec(finished)
    content = codec.subwords.content
    languages, cutting = Languages(*content["languages"]), Cutting(**content["cutting"])
    model = Translator(config.model, config.activation)
    finished.load_evaluated_weights(model, config.average)
    theirs = to_fsmt(model, config.activation, languages, config.search)
    try:
        tokenizer = to_fsmt_tokenizer(codec, cutting, languages, config.model.longest)
    except RequestError as error:
        tokenizer = None
        complain(f"warning: no tokenizer is exported: {error}")
    theirs.save_pretrained(out)
    if tokenizer is not None:
        tokenizer.save_pretrained(out)
    return finished
