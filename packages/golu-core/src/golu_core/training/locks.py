"""One writer at a time, where several runs on a machine start together and find no data yet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Waits until no other process is inside for the same folder; look again whether it is there.

    Args:
        folder: that is to be written; its parent is made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        yield
