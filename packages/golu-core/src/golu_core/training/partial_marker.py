"""The marker of folders that are being made: the first thing that is written into them, and the last that goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, get_args

from ..regular_files import regular_bytes

PARTIAL_MARKER = "partial.json"
PartialFormat = Literal["golu-partial/1", "golu-scratch/1"]
_CONTENTS: dict[PartialFormat, bytes] = {
    form: (json.dumps({"format": form}) + "\n").encode() for form in get_args(PartialFormat)
}


def mark_partial(folder: Path, form: PartialFormat) -> None:
    """Marks a new and empty folder as one of ours that may be removed at any time."""
    (folder / PARTIAL_MARKER).write_bytes(_CONTENTS[form])


def is_barely_begun(folder: Path) -> bool:
    """Whether a kill or a full disk cut short the very first write into a folder of ours: that of its marker."""
    try:
        if [path.name for path in folder.iterdir()] != [PARTIAL_MARKER]:
            return False
        written = regular_bytes(folder / PARTIAL_MARKER)
    except OSError:
        return False
    return any(content.startswith(written) for content in _CONTENTS.values())
