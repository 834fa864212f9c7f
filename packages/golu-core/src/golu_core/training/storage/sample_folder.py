"""A folder of sample data that the first run writes and all others find."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .locks import only_writer, remove_left_lock
from .ownership import SAMPLE_MARKER, new_folder, require_free


def written_once(
    folder: Path,
    what: str,
    is_complete: Callable[[], bool],
    write: Callable[[Path], None],
    marker: Mapping[str, Any],
) -> Path:
    """Writes sample data unless they are there; they appear whole or not at all, whoever else wants them at once.

    Args:
        folder: that is to hold them.
        what: they are, for messages: `the digits`.
        is_complete: whether they lie there.
        write: fills a folder with them.
        marker: that marks the folder as ours, with its `format`.

    Returns:
        The folder.

    Raises:
        RequestError: something else lies there.
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
