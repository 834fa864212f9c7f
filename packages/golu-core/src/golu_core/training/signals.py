"""SIGINT and SIGTERM as a request to stop behind the present step."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any


class StopSignal:
    """Notes the first SIGINT or SIGTERM; a second one, or one before there is anything to save, ends the process.

    Attributes:
        number: the signal that came, None before.
        armed: whether there is something to save.
        announce: whether this process says that it stops.
    """

    def __init__(self, announce: bool) -> None:
        self.number: int | None = None
        self.armed = False
        self.announce = announce
        self._previous: dict[int, Any] = {}

    def install(self) -> None:
        """Takes over both signals."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._note)

    def restore(self) -> None:
        """Gives both back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None or not self.armed:
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
        self.number = number
        if self.announce:
            os.write(2, b"\nstopping after this step; the same command will continue the run\n")
