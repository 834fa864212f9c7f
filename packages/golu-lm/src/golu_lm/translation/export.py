"""`golu-lm export` of a translator's run."""

from __future__ import annotations

from pathlib import Path

from golu_core.training import FinishedRun, RequestError
from golu_core.training.messages import complain

from .config import TranslationConfig
from .evaluate import run_codec
from .hugging_face import to_fsmt, to_fsmt_tokenizer
from .model import Translator
from .parallel_text import Languages
from .prepare import Cutting


def export_translator(folder: Path, out: Path) -> FinishedRun[TranslationConfig]:
    """Writes the weights that a run was evaluated with as a Hugging Face FSMT, and gives the run.

    Raises:
        RequestError: there is no finished run, transformers is missing, or it has no such activation.
    """
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
