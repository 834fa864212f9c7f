"""Locks for a single writer: of data that several runs prepare concurrently, and of a run folder."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..messages.errors import RequestError
from ..messages.text_sinks import fitting_name
from .ownership import no_empty_parents, remove_lock

# the loader processes of a killed run hold its lock for some seconds, until they notice that it is gone
_PATIENCE_S = 15.0

_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
"""The errors of `flock` on a file system without locks, such as Lustre or NFS mounted without them."""

BUSY = "another process is training in"
"""How the message begins of a run that another process trains, which is neither a failure nor a success."""


class FolderLock:
    """A lock beside a folder that is to be written; the system lets it go when this process ends, however it ends.

    The lock's file goes with it. Who waited for a file that is gone by then takes the new one.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder.with_name(f".{fitting_name(folder.name, '..lock')}.lock")
        self._lock: FileLock | None = None

    def acquire(self, patience_s: float) -> None:
        """Acquire the lock.

        Args:
            patience_s: The time to wait for another process, in seconds; -1 waits forever.

        Raises:
            Timeout: Another process holds the lock.
            RequestError: The file system does not support locks.
        """
        with no_empty_parents(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._acquire(patience_s)

    def _acquire(self, patience_s: float) -> None:
        while True:
            lock = FileLock(self.path)
            try:
                lock.acquire(timeout=patience_s)
            except (OSError, NotImplementedError) as error:
                if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
                    raise
                with contextlib.suppress(OSError):
                    remove_lock(self.path)
                raise RequestError(
                    f"the file system of {self.path.parent} has no locks (flock: {error}), which keep two processes "
                    f"from writing the same files: name a folder on another one, such as a local disk, or have it "
                    f"mounted with locks (Lustre: -o flock)"
                ) from None
            held = lock._context.lock_file_fd  # the library has no public name for it
            with contextlib.suppress(OSError):
                if held is not None and os.path.samestat(os.fstat(held), os.stat(self.path)):
                    self._lock = lock
                    return
            lock.release()

    def release(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            remove_lock(self.path)
            self._lock.release()
            self._lock = None


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Wait until no other process writes the same folder. Check again what exists once you hold the lock.

    Args:
        folder: The folder to write. The lock file next to it is removed afterwards.

    Raises:
        RequestError: The file system does not support locks.
    """
    lock = FolderLock(folder)
    lock.acquire(-1)
    try:
        yield
    finally:
        lock.release()


def remove_left_lock(folder: Path) -> None:
    """Remove the lock file next to an existing folder, if a killed writer left it and no process holds it.

    Args:
        folder: The folder that was written. If its parent is not writable, the lock file remains.
    """
    lock = FolderLock(folder)
    if lock.path.exists():
        with contextlib.suppress(Timeout, OSError, RequestError):
            lock.acquire(0)
            lock.release()


def claim(folder: Path, patience_s: float = _PATIENCE_S) -> FolderLock:
    """Prevent a second process from training in the same run folder, where both would write the same files.

    Args:
        folder: The run folder; its parent is created.
        patience_s: The time to wait for another process, in seconds.

    Raises:
        RequestError: Another process holds the folder, or its file system does not support locks.
    """
    lock = FolderLock(folder)
    try:
        lock.acquire(patience_s)
    except Timeout:
        raise RequestError(f"{BUSY} {folder}; wait for it, or stop it") from None
    return lock


def is_claimed(folder: Path) -> bool:
    """Return whether another process trains in a run folder right now; nothing is written."""
    lock = FolderLock(folder)
    if not lock.path.exists():
        return False
    try:
        lock.acquire(0)
    except Timeout:
        return True
    except (OSError, RequestError):  # a lock that this process may not open: the run itself finds out
        return False
    lock.release()
    return False
