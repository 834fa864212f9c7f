"""Files and folders that people put somewhere, without those that systems and editors make for themselves."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from ...regular_files import check_regular
from ..messages.errors import RequestError
from ..messages.text_sinks import printable

NAMED = 3
"""Files that a sentence about many of them names."""

_JUNK_FOLDERS = frozenset({"__MACOSX", "@eaDir"})
_JUNK_FILES = frozenset({"Thumbs.db", "desktop.ini"})


def is_hidden(name: str) -> bool:
    """Whether a system or an editor made a file or folder for itself, such as `._photo.jpg` or `.ipynb_checkpoints`."""
    return name.startswith(".") or name in _JUNK_FOLDERS or name in _JUNK_FILES


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, links to folders among them, sorted; without hidden ones."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))


def visible_files(folder: Path) -> list[Path]:
    """The files below a folder, sorted, without hidden ones; links to folders are followed, each folder once.

    Raises:
        RequestError: a folder below it cannot be read, and its files would be missing.
    """
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    for place, folders, files in os.walk(folder, followlinks=True, onerror=_refuse):
        status = os.stat(place)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        found += [Path(place) / name for name in files if not is_hidden(name)]
    return sorted(found)


def check_files(folder: Path) -> None:
    """Raise RequestError if anything below a folder is not a regular file; for libraries that open all of them."""
    for path in visible_files(folder):
        try:
            check_regular(path)
        except OSError as error:
            raise RequestError(f"{path} cannot be read: {error.strerror}") from None


def _refuse(error: OSError) -> None:
    raise RequestError(f"the folder {error.filename} cannot be read: {error.strerror}")


def left_out(paths: Sequence[Path], why: str = "read as images") -> str:
    """`3 files that are not read as images (2 .txt, 1 without a suffix), such as notes.txt`."""
    kinds = Counter(printable(path.suffix.lower()) or "without a suffix" for path in paths)
    listed = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
    named = ", ".join(printable(path.name) for path in paths[:NAMED])
    files = "1 file that is" if len(paths) == 1 else f"{len(paths):,} files that are"
    return f"{files} not {why} ({listed}), such as {named}"


def remark_on(others: Iterable[Path], where: Path, why: str = "read as images") -> tuple[str, ...]:
    """What is said of files in a folder that are left out: nothing, or one sentence."""
    paths = list(others)
    return (f"{printable(where)} has {left_out(paths, why)}",) if paths else ()
