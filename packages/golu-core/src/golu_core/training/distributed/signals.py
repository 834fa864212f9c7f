"""SIGINT, SIGTERM, and SIGHUP as a request to stop after the current step."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
# a signal to the whole process group comes again from the launcher, which passes on its own
_SECONDS_OF_ECHO = 2.0
_PARENT_DIED = 1  # PR_SET_PDEATHSIG


class StopSignal:
    """Record the first signal. A signal before there is anything to save, or a later Ctrl-C, ends the process.

    Attributes:
        number: The signal that was received; None before.
        armed: Whether there is something to save.
        announce: Whether this process prints that it stops.
    """

    def __init__(self, announce: bool) -> None:
        self.number: int | None = None
        self.armed = False
        self.announce = announce
        self._noted = 0.0
        self._previous: dict[int, Any] = {}

    def install(self) -> None:
        """Install the signal handlers, except for signals that this process ignores, as under nohup."""
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._note)

    def restore(self) -> None:
        """Restore the previous signal handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        leave_closed_terminal(number)
        if not self.armed:
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
        if self.number is not None:
            if number == signal.SIGINT and time.monotonic() - self._noted > _SECONDS_OF_ECHO:
                raise KeyboardInterrupt
            return
        self.number, self._noted = number, time.monotonic()
        if self.announce:
            with contextlib.suppress(OSError):
                os.write(2, b"\nstopping after this step; the same command will continue the run\n")


def leave_closed_terminal(number: int) -> None:
    """Discard output after SIGHUP: nobody reads a closed terminal, and writing to it fails."""
    if number != getattr(signal, "SIGHUP", None):
        return
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            if stat.S_ISCHR(os.fstat(stream.fileno()).st_mode):  # isatty denies that a closed terminal is one
                os.dup2(nowhere, stream.fileno())


@contextmanager
def held_back() -> Iterator[None]:
    """Block the signals while this process starts others, which inherit the blocked signals until `outlive_signals`.

    It also removes torch's SIGCHLD handler, which raises at an arbitrary point of the program. A dead loader process
    is detected when its next batch is awaited.
    """
    if not hasattr(signal, "pthread_sigmask") or threading.current_thread() is not threading.main_thread():
        yield
        return
    of_children = signal.getsignal(signal.SIGCHLD)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGCHLD, of_children or signal.SIG_DFL)


def outlive_signals(worker: int) -> None:
    """Ignore stop signals in a loader process: its parent handles signals to the process group, and ends its loaders.

    Args:
        worker: The index of the loader process, as passed by DataLoader to `worker_init_fn`.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PARENT_DIED, signal.SIGKILL)
