"""One writer at a time: of data that several runs want at once, and of a run's folder."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import RequestError

# the loader processes of a killed run hold its lock for some seconds, until they notice that it is gone
_PATIENCE_S = 15.0


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Waits until no other process of this user and machine is inside for the same folder; look again what is there.

    Args:
        folder: that is to be written. Nothing is left beside it.
    """
    name = hashlib.sha256(f"{Path.home()} {folder.resolve()}".encode()).hexdigest()[:16]
    with FileLock(Path(tempfile.gettempdir()) / f"golu-{name}.lock"):
        yield


def claim(folder: Path, patience_s: float = _PATIENCE_S) -> FileLock:
    """Keeps a second process from training in the same run folder: both would write the same files.

    Args:
        folder: of the run; its parent is made.
        patience_s: how long to wait for another process.

    Returns:
        A lock that the system releases when this process ends, however it ends.

    Raises:
        RequestError: another process has the folder.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=patience_s)
    except Timeout:
        raise RequestError(f"another process trains in {folder}; wait for it, or stop it") from None
    return lock
