"""Temporary folders that are cleaned up, even after a program was killed."""

from __future__ import annotations

import atexit
import contextlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from ..messages.errors import RequestError
from .ownership import discard
from .partial_marker import mark_partial


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Create a temporary folder for the block, and remove those of killed processes."""
    top = Path(tempfile.gettempdir())
    for old in top.glob(f"golu-scratch-{_user()}-*"):
        pid = old.name.split("-")[3]
        if pid.isdigit() and not _is_running(int(pid)):
            with contextlib.suppress(OSError, RequestError):
                discard(old)
    folder = Path(tempfile.mkdtemp(prefix=f"golu-scratch-{_user()}-{os.getpid()}-"))
    mark_partial(folder, "golu-scratch/1")
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):
            discard(folder)


@cache
def dry_run_folder() -> Path:
    """A temporary folder for the sample data of a dry run, which leaves nothing behind."""
    scratch = scratch_folder()
    atexit.register(scratch.__exit__, None, None, None)
    return scratch.__enter__()


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
