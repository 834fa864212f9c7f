"""`golu-translate translate`: translate sentences."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

import tyro

from golu_core.training import FinishedRun, NonNegativeFloat, PositiveInt, RequestError
from golu_core.training.distributed import default_device
from golu_core.training.messages import say_data
from golu_core.training.storage import lines_of
from golu_core.training.tasks import parsed_run_flags

from .config import Beams, BeamSearch, TranslationConfig
from .evaluate import SourceGroups, run_codec
from .model import Translator
from .parallel_text import text_lines
from .search import Translation, beam_search
from .subwords import Codec

_LINES_AT_ONCE = 4096
"""Number of lines to read before translating, so that sentences of similar length share a batch."""


@dataclass(frozen=True)
class TranslateFlags:
    """Translate text with a finished run, one sentence per line."""

    file: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE|-")] = "-"
    """Text with a sentence in each line; `-` is standard input."""
    beam: Beams | None = None
    """Beam width. Defaults to the run's."""
    length_penalty: NonNegativeFloat | None = None
    """Length penalty: log-probabilities are divided by the length to this power. Defaults to the run's."""
    n_best: PositiveInt | None = None
    """Write the N best translations of each line, each as a score, a tab, and the text. At most the beam width."""


def translate_command(arguments: Sequence[str]) -> None:
    """Run `golu-translate translate RUN_DIR [FILE|-] [flags]` on each line of a file or standard input."""
    folder, flags = parsed_run_flags(TranslateFlags, arguments, "golu-translate translate")
    finished = FinishedRun.at(folder, TranslationConfig)
    config = finished.config
    search = config.search.changed(flags.beam, flags.length_penalty)
    if flags.n_best is not None and flags.n_best > search.beam:
        raise RequestError(f"--n-best {flags.n_best} needs as many beams: pass --beam {flags.n_best}")
    codec = run_codec(finished)
    model = Translator(config.model, config.activation)
    finished.load_evaluated_weights(model, config.average)
    model = model.to(default_device()).eval()
    for found in translations(model, codec, _lines(flags.file), search):
        for line in shown(found, codec, flags.n_best):
            say_data(line)


def _lines(named: str) -> Iterator[str]:
    if named == "-":
        yield from lines_of(sys.stdin.buffer, Path("standard input"))
    else:
        yield from text_lines(Path(named))


def translations(
    model: Translator, codec: Codec, lines: Iterator[str], search: BeamSearch
) -> Iterator[list[Translation] | None]:
    """Yield the translations of each line in order, best first; None for a line without text.

    Raises:
        RequestError: A line is too long for the model.
    """
    device = next(model.parameters()).device
    first = 1
    while block := list(islice(lines, _LINES_AT_ONCE)):
        sentences = codec.encoded(block, model.sizes.longest, first)
        full = [number for number, sentence in enumerate(sentences) if len(sentence) > 1]
        groups = SourceGroups([sentences[number] for number in full], search.beam)
        found: list[list[Translation] | None] = [None] * len(block)
        for group, sources in groups.batches():
            for number, result in zip(group, beam_search(model, sources.to(device), search), strict=True):
                found[full[number]] = result
        yield from found
        first += len(block)


def shown(found: list[Translation] | None, codec: Codec, n_best: int | None) -> list[str]:
    """Return the output lines for an input line: its translation, or the best ones with their scores."""
    if found is None:
        return [""]
    if n_best is None:
        return [codec.text(found[0].tokens)]
    return [f"{translation.score:.4f}\t{codec.text(translation.tokens)}" for translation in found[:n_best]]
