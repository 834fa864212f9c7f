"""Tokenize a corpus into `train.bin`, `test.bin`, and `meta.json`: all or nothing, and resumed if killed.

begin      create a hidden partial folder with a journal, or reopen those of a killed preparation
truncate   cut each split's file back to the tokens that the journal records
tokenize   append a block of documents to the file, sync it, and record the position in the journal
describe   write meta.json with the counts and checksums, and remove the journal
publish    rename the partial folder to its final name
"""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy
import tyro

from golu_core.training import RequestError, Seed
from golu_core.training.config import FolderName, Range
from golu_core.training.messages import progress_bar, say
from golu_core.training.storage import (
    TOKENS_MARKER,
    already_prepared,
    begin_partial,
    discard,
    file_digest,
    foreign_files,
    is_ours,
    partial_of,
    publish,
    read_marker,
    regular_json,
    remove_file,
    sweep_partials,
    truncate_file,
    write_json,
)
from golu_core.training.tasks import parsed_flags

from .corpora import SPLITS, Corpus, Reading, checked_dataset, open_corpus, title
from .own_files import text_name
from .text_files import Piece
from .tokenizers import Tokenizer, Tokens, build_tokenizer

META_FILE = TOKENS_MARKER
FORMAT = "golu-tokens/1"
_JOURNAL = "journal.json"
_CHARACTERS_AT_ONCE = 1 << 24
"""Characters per block: enough to keep all threads busy, while a block and its tokens fit into memory."""


@dataclass(frozen=True)
class PrepareFlags:
    """Tokenize a data set or your own text for training."""

    FORMER_NAMES: ClassVar[Mapping[str, str]] = {"split_on_endoftext": "separated"}

    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """`tinystories`, `openwebtext`, `pydocs`, or a file or folder of text."""
    data_dir: Path = Path("data")
    """Folder that holds the data sets."""
    name: FolderName | None = None
    """Subfolder to write to. Defaults to the name of the data set or file."""
    tokenizer: str = "gpt2"
    """`gpt2` or `bytes`."""
    vocab_file: Path | None = None
    """GPT-2's vocabulary, where tiktoken cannot download it."""
    hub: str | None = None
    """Alternative hub id, or path of a local copy of the data set."""
    revision: str | None = None
    """Revision of the data set on the hub."""
    column: str | None = None
    """Column with the text of a table or data set; by default `text`."""
    split_on_endoftext: bool = True
    """Split plain text into documents at `<|endoftext|>`; otherwise it is text like any other."""
    test_size: float | None = None
    """Fraction of the data to hold out for testing if there is no test split. Defaults to 0.1 for plain text, 0.05 for
    tables, and the published fraction for known data sets."""
    seed: Seed | None = None
    """Seed for choosing the test documents. Defaults to 2357, as published."""
    num_workers: Annotated[int, Range(ge=1, le=512)] = os.cpu_count() or 1
    """Threads that tokenize and processes that load."""
    overwrite: bool = False
    """Delete what `prepare` wrote there and start again."""


@dataclass
class _SplitProgress:
    """The progress of a split: position in the corpus, documents, tokens, and bytes of text."""

    position: int = 0
    documents: int = 0
    tokens: int = 0
    text_bytes: int = 0


@dataclass
class _Journal:
    """The contents of the partial folder, and the request it belongs to."""

    request: dict[str, Any]
    splits: dict[str, _SplitProgress] = field(default_factory=lambda: {name: _SplitProgress() for name in SPLITS})


def prepare_command(arguments: Sequence[str]) -> None:
    """Run `golu-lm prepare DATASET [flags]`."""
    if "wmt14" in arguments[:1] or any(word.partition("=")[0] == "--pair" for word in arguments):
        # remove it with the next version, like TASK.moved
        command = shlex.join(["golu-translate", "prepare", *arguments])
        raise RequestError(f"pairs of sentences are now prepared by {command}")
    flags = parsed_flags(PrepareFlags, arguments, "golu-lm prepare")
    dataset = flags.dataset
    reading = Reading(
        flags.hub,
        flags.revision,
        flags.column,
        flags.test_size,
        flags.seed,
        None if flags.split_on_endoftext else False,
    )
    files = checked_dataset(dataset, reading)
    tokenizer = build_tokenizer(flags.tokenizer, flags.vocab_file)
    corpus = open_corpus(dataset, reading, flags.num_workers)
    folder = flags.data_dir / (flags.name or text_name(Path(dataset)))
    if flags.overwrite:
        _remove_prepared(folder)
    meta = prepare(corpus, folder, tokenizer, flags.num_workers, show_progress=True)
    for remark in files.remarks if files is not None else ():
        say(f"note: {remark}")
    for split, facts in meta["splits"].items():
        documents, tokens, text_bytes = (facts[key] for key in ("documents", "tokens", "text_bytes"))
        say(f"{split}: {documents:,} documents, {tokens:,} tokens, {text_bytes:,} bytes of text")
    say(f"prepared: {folder}")


def prepare(
    corpus: Corpus,
    folder: Path,
    tokenizer: Tokenizer,
    threads: int,
    *,
    show_progress: bool = False,
    fewest_tokens: int = 1,
) -> dict[str, Any]:
    """Tokenize both splits into a folder, which appears only when it is complete.

    Args:
        corpus: The text.
        folder: The folder for `train.bin`, `test.bin`, and `meta.json`.
        tokenizer: The tokenizer. Tokens are stored as uint16, or as uint32 if the vocabulary needs it.
        threads: Number of tokenizer threads.
        show_progress: Show a progress bar on standard error.
        fewest_tokens: Minimum number of tokens per split.

    Returns:
        The contents of meta.json.

    Raises:
        RequestError: The folder holds a different corpus, or a split has too few tokens; nothing is written in this
            case.
    """
    request = {"format": FORMAT, "source": corpus.source, "tokenizer": tokenizer.name, "dtype": _dtype(tokenizer)}
    if folder.exists():
        return already_prepared(folder, request)
    try:
        return _prepared(corpus, folder, tokenizer, threads, request, show_progress, fewest_tokens)
    except RequestError:  # the same command can resume a killed preparation; a refused request leaves nothing
        discard(partial_of(folder))
        raise


def _prepared(
    corpus: Corpus,
    folder: Path,
    tokenizer: Tokenizer,
    threads: int,
    request: dict[str, Any],
    show_progress: bool,
    fewest_tokens: int,
) -> dict[str, Any]:
    partial, journal = _begun(folder, request)
    digests = {}
    for split in SPLITS:
        with progress_bar(f"{folder.name} {split}", corpus.size(split), show_progress) as advance:
            digests[split] = _write_split(corpus, split, partial, journal, tokenizer, threads, advance)
        if journal.splits[split].tokens < fewest_tokens:
            found = journal.splits[split].tokens
            raise RequestError(
                f"the {split} split of {title(corpus.source)} has {found:,} tokens, but {fewest_tokens:,} are needed: "
                f"add more text{', or a shorter --model.context' if fewest_tokens > 1 else ''}"
            )
    facts = {
        split: {
            "documents": done.documents,
            "tokens": done.tokens,
            "text_bytes": done.text_bytes,
            "sha256": digests[split],
        }
        for split, done in journal.splits.items()
    }
    meta = {**request, "vocabulary": tokenizer.size, "end_of_text": tokenizer.end_of_text, "splits": facts}
    write_json(partial / META_FILE, meta)
    remove_file(partial / _JOURNAL)
    publish(partial, folder)
    return meta


def _remove_prepared(folder: Path) -> None:
    """Remove what --overwrite replaces; raise RequestError if the folder is not prepared tokens."""
    if folder.exists() and read_marker(folder, META_FILE) is None:
        raise RequestError(
            f"{folder} was not made by golu-lm prepare, so --overwrite does not remove it: choose a --name"
        )
    sweep_partials(folder)  # version 0.2 could leave some partial folders inside
    foreign = foreign_files(folder, (META_FILE, *(f"{split}.bin" for split in SPLITS)))
    if foreign:
        raise RequestError(f"{foreign[0]} was not made by golu-lm prepare: move it away, or choose another --name")
    discard(folder)
    discard(partial_of(folder))


def _dtype(tokenizer: Tokenizer) -> str:
    return "uint16" if tokenizer.size <= 1 << 16 else "uint32"


def _begun(folder: Path, request: dict[str, Any]) -> tuple[Path, _Journal]:
    """Return the partial folder and journal of a preparation that was killed, or create both."""
    partial = partial_of(folder)
    try:
        values = regular_json(partial / _JOURNAL)
        journal = _Journal(values["request"], {k: _SplitProgress(**v) for k, v in values["splits"].items()})
        if journal.request == request and is_ours(partial):
            return partial, journal
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return begin_partial(folder), _Journal(request)


def _write_split(
    corpus: Corpus,
    split: str,
    partial: Path,
    journal: _Journal,
    tokenizer: Tokenizer,
    threads: int,
    advance: Callable[[int], None],
) -> str:
    """Write the missing blocks of a split, record each in the journal, and return the file's SHA-256."""
    path = partial / f"{split}.bin"
    done = journal.splits[split]
    dtype = numpy.dtype(_dtype(tokenizer))
    path.touch()
    if path.stat().st_size < done.tokens * dtype.itemsize:  # a crash lost tokens that the journal records
        done = journal.splits[split] = _SplitProgress()
    truncate_file(path, done.tokens * dtype.itemsize)
    advance(done.position)
    with path.open("ab") as file:
        for block in _blocks(corpus.pieces(split, done.position)):
            encoded = tokenizer.encode_all([piece.text for piece in block], threads)
            joined = _joined(block, encoded, tokenizer.end_of_text).astype(dtype)
            file.write(joined.tobytes())
            file.flush()
            os.fsync(file.fileno())
            done.tokens += len(joined)
            done.documents += sum(piece.ends_document for piece in block)
            done.text_bytes += sum(len(piece.text.encode("utf-8", "replace")) for piece in block)
            done.position = block[-1].next_position
            write_json(partial / _JOURNAL, dataclasses.asdict(journal))
            advance(done.position)
    return file_digest(path)


def _blocks(pieces: Iterator[Piece]) -> Iterator[list[Piece]]:
    """Group pieces into lists of about 16 million characters, to bound memory and keep the threads busy."""
    block: list[Piece] = []
    characters = 0
    for piece in pieces:
        block.append(piece)
        characters += len(piece.text)
        if characters >= _CHARACTERS_AT_ONCE:
            yield block
            block, characters = [], 0
    if block:
        yield block


def _joined(block: list[Piece], encoded: list[Tokens], end_of_text: int) -> Tokens:
    end = numpy.array([end_of_text], dtype=numpy.uint32)
    parts = []
    for piece, tokens in zip(block, encoded, strict=True):
        parts.append(tokens)
        if piece.ends_document:
            parts.append(end)
    return numpy.concatenate(parts)
