"""A folder that a person names for what a command makes: it appears with all that is in it, or the command fails.

    begin      a hidden folder beside the new one, or inside an empty one that is there
    fill       the command writes its files into it
    finish     all files are synchronized, then one rename gives the folder its name

A kill leaves the hidden folder, which the same command removes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from ..messages.errors import RequestError, RunFailure
from .ownership import (
    INSIDE,
    begin_partial,
    clear_inside,
    discard,
    is_vacant,
    make_readable,
    no_empty_parents,
    settle,
    sweep_partials,
    sync,
    unpack,
)
from .partial_marker import is_unsettled


def check_output_folder(folder: Path, flag: str) -> None:
    """Raises RequestError if something lies where a command would write; `flag` names the folder, such as `--out`."""
    if not is_vacant(folder):
        if folder.is_dir() and not folder.is_symlink():
            sweep_partials(folder, [".*.discarded"])  # all of it is there, but a kill came before the last cleaning up
        raise RequestError(f"{folder} exists, and is not an empty folder: name a new one by {flag}")


@contextmanager
def output_folder(folder: Path, flag: str) -> Iterator[Path]:
    """A folder for the block to fill, which then gets its name, whole or not at all.

    Args:
        folder: The new folder, or an empty one.
        flag: The flag that names it.

    Raises:
        RequestError: Something lies there.
        RunFailure: Weights could not be written.
        OSError: A file could not be written; the message names it or the folder.
    """
    check_output_folder(folder, flag)
    if is_unsettled(folder):
        discard(folder)
    there = folder.exists()  # it may be a mounted volume or the current folder, which cannot be replaced by another
    with _named_errors(folder), no_empty_parents(folder):
        if there:
            clear_inside(folder)
        partial = begin_partial(folder / INSIDE if there else folder)
        try:
            yield partial
            _synchronize(partial)
            (unpack if there else settle)(partial, folder)
        except BaseException as error:
            if there:
                clear_inside(folder)
            else:
                discard(partial)
            if isinstance(error, SafetensorError):
                raise RunFailure(f"{folder} could not be written: {error}") from error
            raise


@contextmanager
def _named_errors(folder: Path) -> Iterator[None]:
    """Errors of the disk in the block name the folder, where they name no file; `fsync` knows none."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(f"{folder} could not be written: {error.strerror}") from error


def _synchronize(partial: Path) -> None:
    """Makes all files readable as the umask has it, and sure to be on the disk."""
    for path in sorted(partial.rglob("*")):
        if path.is_file():
            make_readable(path)
        sync(path)
