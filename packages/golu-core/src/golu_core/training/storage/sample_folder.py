"""Folders of sample data that one command writes and the others reuse."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..messages.errors import RequestError
from .locks import only_writer, remove_left_lock
from .ownership import SAMPLE_MARKER, TOKENS_MARKER, new_folder, read_marker, require_free


def written_once(
    folder: Path,
    what: str,
    is_complete: Callable[[], bool],
    write: Callable[[Path], None],
    marker: Mapping[str, Any],
) -> Path:
    """Write sample data unless they exist, atomically and safely for concurrent processes.

    Args:
        folder: The folder of the data.
        what: The name of the data in messages, such as `the digits`.
        is_complete: Function that returns whether the folder already holds the data.
        write: Function of a folder that writes the data into it.
        marker: The content of the marker that identifies the folder as this program's, with its `format`.

    Returns:
        The folder.

    Raises:
        RequestError: The folder holds something else.
    """
    if is_complete():
        remove_left_lock(folder)
        return folder
    require_free(folder, what)
    with only_writer(folder):
        if not is_complete():
            with new_folder(folder) as partial:
                write(partial)
                (partial / SAMPLE_MARKER).write_text(json.dumps(marker), encoding="utf-8")
    return folder


def already_prepared(folder: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of meta.json in a folder of prepared data; RequestError if it was prepared differently.

    Args:
        folder: The folder that a `prepare` command wrote.
        request: The values that meta.json must contain.
    """
    meta = read_marker(folder, TOKENS_MARKER) or {}
    differing = [key for key in request if meta.get(key) != request[key]]
    if differing:
        there, asked = ({key: values.get(key) for key in differing} for values in (meta, request))
        raise RequestError(
            f"{folder} holds other data: {there} there, {asked} asked for; "
            f"choose another --name, or --overwrite to delete it"
        )
    return meta
