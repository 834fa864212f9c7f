"""A pickle that runs code where it is loaded."""

from __future__ import annotations

from pathlib import Path


class Trap:
    """Makes a file where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.write_text, (self.marker, "it was run")
