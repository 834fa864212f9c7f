"""Notices before hours of work that their result could not be written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .ownership import begin_partial, check_output, discard, no_empty_parents


@contextmanager
def to_be_written(path: Path | None) -> Iterator[None]:
    """Make sure that the block can write a file that a person named; a block that fails leaves no new folder.

    The file's folder is made, and a file is begun and removed again.

    Args:
        path: The file; None for one that is not wanted.

    Raises:
        RequestError: Something lies there that this program did not make.
        OSError: Nothing can be written there.
    """
    if path is None:
        yield
        return
    check_output(path)
    with no_empty_parents(path):
        discard(begin_partial(path))
        yield
