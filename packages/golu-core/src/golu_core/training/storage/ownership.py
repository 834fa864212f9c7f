"""The one place that removes or replaces files: only what carries the mark of the program that made it.

Folders of ours have a marker, a JSON file whose `format` begins with `golu-`; pictures and JSON files that a person
asks for have `made by golu` in them. What has neither is the user's, and is left alone: a refusal, not a removal.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...regular_files import open_regular, regular_json
from ..messages.errors import RequestError
from ..messages.text_sinks import fitting_name
from .partial_marker import (
    PARTIAL_MARKER,
    is_barely_begun,
    is_unsettled,
    listed_names,
    mark_partial,
    marker_with_names,
)

RUN_MARKER = "run.json"
SAMPLE_MARKER = "complete.json"
TOKENS_MARKER = "meta.json"
REPORT_MARKER = "report.json"
CHECKPOINT_MARKER = "manifest.json"
STUDY_MARKER = "study.json"
_MARKERS = (
    PARTIAL_MARKER,
    CHECKPOINT_MARKER,
    RUN_MARKER,
    SAMPLE_MARKER,
    TOKENS_MARKER,
    REPORT_MARKER,
    STUDY_MARKER,
)
MADE_BY = "made by golu"
_BYTES_SEARCHED = 4096
INSIDE, _NEW_MARKER = "output", "new-partial.json"  # of what is made inside a folder that is there
_UMASK = os.umask(0o077)  # it can only be read by setting it
os.umask(_UMASK)


# ------------------------------------------------------------------------------------------------------------ folders


def read_marker(folder: Path, name: str) -> dict[str, Any] | None:
    """Return a folder's marker; None if it has no marker of this program."""
    try:
        values = regular_json(folder / name)
    except (OSError, ValueError, RecursionError):
        return None
    ours = isinstance(values, dict) and str(values.get("format", values.get("schema", ""))).startswith("golu-")
    return values if ours else None


def is_ours(folder: Path) -> bool:
    """Whether this program made a folder, and it is not a symbolic link."""
    return not folder.is_symlink() and any(read_marker(folder, name) is not None for name in _MARKERS)


def foreign_files(folder: Path, patterns: Iterable[str]) -> list[Path]:
    """What lies in a folder and is not of the program's layout, symbolic links and folders without files included.

    Args:
        folder: A folder that this program made.
        patterns: The patterns of the program's files, relative to the folder, such as `samples/epoch-*.png`.
    """
    known = tuple(patterns)
    found = []
    for place, folders, files in os.walk(folder):
        inside = Path(place).relative_to(folder)
        linked = [name for name in folders if (Path(place) / name).is_symlink()]
        for name in [*files, *linked]:
            path = (inside / name).as_posix()
            if (Path(place) / name).is_symlink() or not any(fnmatch.fnmatchcase(path, p) for p in known):
                found.append(folder / path)
    return sorted(found)


def discard(folder: Path) -> None:
    """Remove a folder made by this program, with its content. A missing folder is ignored.

    The folder is renamed first and its marker is removed last, so that a kill never leaves a folder that looks
    complete, and the next call removes the remains.

    Raises:
        RequestError: This program did not make the folder.
    """
    doomed = _doomed(folder)
    if os.path.lexists(doomed):
        _remove_tree(doomed)
    if os.path.lexists(folder):
        _require_ours(folder)
        folder.rename(doomed)
        _remove_tree(doomed)


def _doomed(folder: Path) -> Path:
    return _hidden_sibling(folder, "discarded")


def remove_leftovers(folder: Path) -> None:
    """Remove the remains of an interrupted write or removal next to a folder."""
    for left in (_doomed(folder), partial_of(folder)):
        if os.path.lexists(left):
            _remove_tree(left)


def _require_ours(folder: Path) -> None:
    if folder.is_symlink():
        raise RequestError(f"{folder} is a symbolic link, and nothing is removed through one")
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if not is_ours(folder) and not is_barely_begun(folder):
        raise RequestError(
            f"{folder} exists, and this program did not make it, so it is not removed: "
            f"move it away, or choose another path"
        )


def _remove_tree(folder: Path) -> None:
    _require_ours(folder)
    markers = [folder / name for name in _MARKERS if (folder / name).exists()]
    for path in folder.iterdir():
        if path in markers:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    for path in markers:
        path.unlink()
    folder.rmdir()


def require_free(folder: Path, what: str) -> None:
    """Raise RequestError if a path where this program would write a folder is occupied; empty folders are allowed.

    Args:
        what: The name of the data in the message, such as `the digits`.
    """
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise RequestError(
            f"{folder} already holds files, and {what} would be written there: choose another --data-dir or "
            f"name, or move them away"
        )


def is_vacant(folder: Path) -> bool:
    """Whether a new folder may appear at a path: nothing is there, or a folder that holds only what a kill left."""
    if folder.is_symlink():
        return False
    if not folder.exists():
        return True
    if not folder.is_dir():
        return False
    moved = _moved_before(folder)
    return is_unsettled(folder) or all(path.name in moved or _is_leftover(path) for path in folder.iterdir())


def _is_leftover(path: Path) -> bool:
    """Whether a killed write or removal of ours left a folder."""
    if not (path.name.startswith(".") and path.name.endswith((".partial", ".discarded"))):
        return False
    return path.is_dir() and (is_ours(path) or is_barely_begun(path) or not any(path.iterdir()))


def begin_partial(folder: Path) -> Path:
    """Create an empty folder next to the final one, which `publish` renames into place.

    Raises:
        RequestError: A folder that this program did not make is in the way.
    """
    partial = partial_of(folder)
    discard(partial)
    partial.mkdir(parents=True)
    mark_partial(partial, "golu-partial/1")
    return partial


def partial_of(folder: Path) -> Path:
    """Return the temporary path of a file or folder that is being written."""
    return _hidden_sibling(folder, "partial")


def _hidden_sibling(path: Path, ending: str) -> Path:
    """`.NAME.ending` beside a path, where NAME is cut if the whole would be longer than file systems allow."""
    return path.with_name(f".{fitting_name(path.name, f'..{ending}')}.{ending}")


def publish(partial: Path, folder: Path) -> None:
    """Renames what `begin_partial` began into its place, which must be free, without what killed writes left in it."""
    require_free(folder, "the data")
    sweep_partials(partial)
    (partial / PARTIAL_MARKER).unlink()
    partial.rename(folder)
    sync(folder.parent)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder that appears whole or not at all: the block fills what it is given, and an error leaves nothing."""
    partial = begin_partial(folder)
    try:
        yield partial
    except BaseException:
        discard(partial)
        raise
    publish(partial, folder)


def settle(partial: Path, folder: Path) -> None:
    """Gives a folder without a marker of its own its name; until all is done, a marker lists what belongs to it."""
    _list_names(partial)
    partial.rename(folder)
    sync(folder.parent)
    (folder / PARTIAL_MARKER).unlink()


def _list_names(partial: Path) -> None:
    """Puts the names of all files in a partial folder into its marker."""
    (partial / _NEW_MARKER).write_bytes(marker_with_names(partial))
    sync(partial / _NEW_MARKER)
    (partial / _NEW_MARKER).replace(partial / PARTIAL_MARKER)
    sync(partial)


def clear_inside(folder: Path) -> None:
    """Removes what a killed or failed making inside a vacant folder left there, and what was moved out already."""
    moved = _moved_before(folder)
    for path in [path for path in folder.iterdir() if path.name in moved]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    sweep_partials(folder)


def unpack(partial: Path, folder: Path) -> None:
    """Moves what was made inside a folder to its place; a kill on the way leaves a marker that lists all names."""
    _list_names(partial)
    for path in [path for path in partial.iterdir() if path.name != PARTIAL_MARKER]:
        path.rename(folder / path.name)
    sync(folder)
    discard(partial)


def _moved_before(folder: Path) -> frozenset[str]:
    """Names that a killed `unpack` had moved into a folder already."""
    partial = partial_of(folder / INSIDE)
    moved: set[str] = set()
    for left in (partial, _doomed(partial)):
        tops = {Path(name).parts[0] for name in listed_names(left)}
        moved |= {name for name in tops if not os.path.lexists(left / name)}
    return frozenset(moved)


@contextmanager
def no_empty_parents(folder: Path) -> Iterator[None]:
    """Removes the folders around a folder that are new and empty, if the block fails."""
    missing = [parent for parent in folder.parents if not parent.exists()]
    try:
        yield
    except BaseException:
        for parent in missing:
            with contextlib.suppress(OSError):
                parent.rmdir()
        raise


# -------------------------------------------------------------------------------------------------------------- files


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file atomically: to a temporary file in the same folder, which is then renamed.

    For files in this program's folders; for output paths that users choose, use `write_output`.

    Args:
        path: The path of the file.
        write: Function of a path that writes the file there; it may leave temporary files next to it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = begin_partial(path)
    try:
        write(partial / path.name)
        make_readable(partial / path.name)
        sync(partial / path.name)
        (partial / path.name).replace(path)
    finally:
        with contextlib.suppress(OSError):
            discard(partial)
    sync(path.parent)


def make_readable(path: Path) -> None:
    """Gives a file the permissions that the user's umask grants; some libraries keep theirs from all others.

    Object stores and Windows shares refuse this. The file's owner can read it all the same.
    """
    with contextlib.suppress(OSError):
        path.chmod(0o666 & ~_UMASK)


def write_output(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file to an output path that the user chose, atomically.

    Raises:
        RequestError: The path holds a file that this program did not make.
    """
    check_output(path)
    write_atomically(path, write)


def check_output(path: Path) -> None:
    """Raise RequestError if a path holds something that this program did not make."""
    if path.is_symlink() or path.is_dir():
        raise RequestError(f"{path} is a {'symbolic link' if path.is_symlink() else 'folder'}: name another file")
    if not path.exists():
        return
    with open_regular(path) as file:
        if MADE_BY.encode() not in file.read(_BYTES_SEARCHED):
            raise RequestError(f"{path} exists, and this program did not make it: name another file")


def bytes_writer(content: bytes) -> Callable[[Path], None]:
    """Return a function that writes bytes to a path."""

    def write(path: Path) -> None:
        path.write_bytes(content)

    return write


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8 atomically."""

    def write(partial: Path) -> None:
        partial.write_text(text, encoding="utf-8")

    write_atomically(path, write)


def remove_file(path: Path) -> None:
    """Remove a file if it exists; raise RequestError if it is not inside a folder of this program."""
    if not any(is_ours(folder) for folder in path.parents):
        raise RequestError(f"{path} is not in a folder that this program made, so it is not removed")
    path.unlink(missing_ok=True)


def truncate_file(path: Path, length: int) -> None:
    """Truncate a file; raise RequestError if it is not inside a folder of this program."""
    if not any(is_ours(folder) for folder in path.parents):
        raise RequestError(f"{path} is not in a folder that this program made, so it is not truncated")
    os.truncate(path, length)


def remove_lock(path: Path) -> None:
    """Remove a lock file that this process holds."""
    path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Makes sure that a file or folder is on the disk; where a file system cannot say so of a folder, that is that."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def sweep_partials(folder: Path, patterns: Iterable[str] = (".*.partial", ".*.discarded")) -> None:
    """Removes what killed writes of ours left beside the files of a folder."""
    for pattern in patterns:
        for left in folder.glob(pattern):
            with contextlib.suppress(RequestError):
                _remove_tree(left)
