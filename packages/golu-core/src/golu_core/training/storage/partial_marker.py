"""The marker of folders that are being made: the first thing that is written into them, and the last that goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, get_args

from ...regular_files import regular_bytes, regular_json

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


def _names_in(folder: Path) -> frozenset[str]:
    """The files in a folder, at any depth, without the marker."""
    files = (path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    return frozenset(path.relative_to(folder).as_posix() for path in files) - {PARTIAL_MARKER}


def marker_with_names(folder: Path) -> bytes:
    """The marker of a folder that is filled, with the names of its files, for whoever finds it half moved."""
    return json.dumps({"format": "golu-partial/1", "names": sorted(_names_in(folder))}).encode()


def is_unsettled(folder: Path) -> bool:
    """Whether a kill left a folder that has its name already and is whole, and nobody has added a file to it."""
    return (folder / PARTIAL_MARKER).exists() and listed_names(folder) == _names_in(folder) != frozenset()


def listed_names(folder: Path) -> frozenset[str]:
    """The names that a folder's marker lists; none where it lists none, or is not ours."""
    try:
        values = regular_json(folder / PARTIAL_MARKER)
        return frozenset(values["names"]) if values["format"] in _CONTENTS else frozenset()
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset()
