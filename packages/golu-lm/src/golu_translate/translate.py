"""`golu-translate translate`: translate sentences."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Annotated

import tyro

from golu_core.training import FinishedRun, NonNegativeFloat, PositiveInt, RequestError, RunFailure
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

_NAMED = 5
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
    """Write the N best translations of each line, each as the line's number, a score, and the text, with tabs between
    them. At most the beam width."""


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
    overlong: list[int] = []
    blocks = arriving_blocks(_lines("-")) if flags.file == "-" else blocks_of(_lines(flags.file))
    for number, found in enumerate(translations(model, codec, blocks, search, overlong), 1):
        for line in shown(found, codec, flags.n_best, number):
            say_data(line)
    if overlong:
        first = ", ".join(map(str, overlong[:_NAMED])) + (", …" if len(overlong) > _NAMED else "")
        lines = "1 line has" if len(overlong) == 1 else f"{len(overlong):,} lines have"
        raise RunFailure(
            f"{lines} more subwords than the {model.sizes.longest:,} that the model accepts, and no translation "
            f"(line {first}): cut them in two"
        )


def _lines(named: str) -> Iterator[str]:
    if named == "-":
        yield from lines_of(sys.stdin.buffer, Path("standard input"))
    else:
        yield from text_lines(Path(named))


def blocks_of(lines: Iterator[str]) -> Iterator[list[str]]:
    """Yield lines in large blocks, so that sentences of similar length share a batch."""
    while block := list(islice(lines, _LINES_AT_ONCE)):
        yield block


def arriving_blocks(lines: Iterator[str]) -> Iterator[list[str]]:
    """Yield the lines of a pipe as they come: all that are there, so that whoever writes them need not wait."""
    arrived: Queue[str | BaseException | None] = Queue(_LINES_AT_ONCE)

    def read() -> None:
        try:
            for line in lines:
                arrived.put(line)
            arrived.put(None)
        except BaseException as error:  # raised again below
            arrived.put(error)

    Thread(target=read, daemon=True).start()
    while True:
        block: list[str] = []
        while len(block) < _LINES_AT_ONCE and (not block or not arrived.empty()):
            item = arrived.get()
            if not isinstance(item, str):
                if block:
                    yield block
                if item is not None:
                    raise item
                return
            block.append(item)
        yield block


def translations(
    model: Translator, codec: Codec, blocks: Iterator[list[str]], search: BeamSearch, overlong: list[int]
) -> Iterator[list[Translation] | None]:
    """Yield the translations of each line in order, best first; None for a line without text, or with too much of it.

    Args:
        model: The translator.
        codec: The codec for text and subwords.
        blocks: Lines that are translated together.
        search: The beam search.
        overlong: Is filled with the numbers of the lines that are too long for the model.
    """
    device = next(model.parameters()).device
    first = 1
    for block in blocks:
        sentences = codec.sentences(block)
        overlong += [n for n, sentence in enumerate(sentences, first) if len(sentence) > model.sizes.longest]
        full = [n for n, sentence in enumerate(sentences) if 1 < len(sentence) <= model.sizes.longest]
        groups = SourceGroups([sentences[number] for number in full], search.beam)
        found: list[list[Translation] | None] = [None] * len(block)
        for group, sources in groups.batches():
            for number, result in zip(group, beam_search(model, sources.to(device), search), strict=True):
                found[full[number]] = result
        yield from found
        first += len(block)


def shown(found: list[Translation] | None, codec: Codec, n_best: int | None, number: int) -> list[str]:
    """Return the output lines for an input line: its translation, or the best ones with their scores.

    Args:
        found: The translations, best first; None for a line without any.
        codec: The codec for text and subwords.
        n_best: How many translations to show, with number and score.
        number: The number of the input line.
    """
    if found is None:
        return [""] if n_best is None else []
    if n_best is None:
        return [codec.text(found[0].tokens)]
    return [f"{number}\t{best.score:.4f}\t{codec.text(best.tokens)}" for best in found[:n_best]]
