"""Files that somebody else may have put there: opened only if they are files, so that no command waits for a pipe.

A named pipe blocks whoever opens it until somebody writes, a device may have no end, and neither has a size. Everything
here raises OSError with the reason in `strerror`, as `open` does for a folder.
"""

from __future__ import annotations

import codecs
import errno
import json
import os
import stat
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import Any

_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISFIFO, "it is a pipe, not a file: write its content to a file first"),
    (stat.S_ISSOCK, "it is a socket, not a file"),
    (stat.S_ISCHR, "it is a device, not a file"),
    (stat.S_ISBLK, "it is a device, not a file"),
)
_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # begins as UTF-16's does, so it comes first
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
# a path that becomes a pipe after its check must not block either; Windows has neither flag, and needs O_BINARY
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)


def check_regular(path: Path | str) -> None:
    """Raise OSError unless a path leads to a regular file; for libraries that open files by name."""
    try:
        _check(os.stat(path).st_mode, path)
    except ValueError:  # a NUL byte
        raise OSError(errno.EINVAL, "no file can have this name", str(path)) from None


def open_regular(path: Path | str) -> BufferedReader:
    """Open a regular file for reading bytes; OSError for everything else."""
    check_regular(path)  # before it is opened: a writer that waits for a reader must not find one that leaves
    descriptor = os.open(path, _FLAGS)
    try:
        _check(os.fstat(descriptor).st_mode, path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def regular_bytes(path: Path | str) -> bytes:
    """The content of a regular file; OSError for everything else."""
    with open_regular(path) as file:
        return file.read()


def regular_text(path: Path | str) -> str:
    """The text of a file of this program, which an editor may have saved again; OSError or ValueError."""
    content = regular_bytes(path)
    mark, encoding = marked_encoding(content)
    return content[len(mark) :].decode(encoding)


def regular_json(path: Path | str) -> Any:
    """The JSON value in a file of this program; OSError or ValueError."""
    text = regular_text(path)
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def marked_encoding(beginning: bytes) -> tuple[bytes, str]:
    """The byte order mark with which a text begins and its encoding; no mark and UTF-8 without one."""
    return next(((mark, name) for mark, name in _MARKS.items() if beginning.startswith(mark)), (b"", "utf-8"))


def _check(mode: int, path: Path | str) -> None:
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    reason = next((reason for matches, reason in _KINDS if matches(mode)), "it is not a regular file")
    raise OSError(errno.EINVAL, reason, str(path))
