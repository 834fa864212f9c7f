"""Text files that may be compressed, read as a stream of UTF-8.

UTF-16 and UTF-32 with a byte order mark, as Windows saves them, become UTF-8 while they are read.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ...regular_files import marked_encoding, open_regular
from ..messages.errors import RequestError
from .user_files import decoded_parts, has_null, not_text

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
"""Suffixes that may follow a file's own. What a file is compressed by is seen in its first bytes."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SKIPPED_AT_ONCE = 1 << 20
_LONGEST_LINE = 400_000  # bytes of a sentence: 100,000 characters, which Moses' rules cut in two seconds


def uncompressed_name(path: Path) -> Path:
    """Return `x.jsonl` for `x.jsonl.gz`."""
    return path.with_suffix("") if path.suffix.lower() in COMPRESSED else path


def _zstd(path: Path) -> IO[bytes]:
    import pyarrow  # which golu-lm installs

    # unlike zstandard's own reader it reads every frame, and does not take half a file for a whole one
    stream: IO[bytes] = pyarrow.input_stream(str(path), compression="zstd")
    return stream


_DECODERS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
    b"\x28\xb5\x2f\xfd": _zstd,
}


def _decoder(path: Path) -> Callable[[Path], Any] | None:
    try:
        with open_regular(path) as file:
            beginning = file.read(16)
    except OSError as error:
        raise RequestError(f"the text file {path} cannot be read: {error.strerror}") from None
    return next((opens for magic, opens in _DECODERS.items() if beginning.startswith(magic)), None)


class _AsUtf8(io.RawIOBase):
    """A text of another encoding as the bytes of UTF-8."""

    def __init__(self, parts: Iterator[str]) -> None:
        self._parts = parts
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._ready:
            self._ready = memoryview(next(self._parts, "").encode("utf-8"))
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count


@contextmanager
def opened(path: Path, position: int = 0) -> Iterator[IO[bytes]]:
    """The bytes of a file from a place on, unpacked and in UTF-8; RequestError if it cannot be opened or unpacked."""
    decoder = _decoder(path)
    try:
        with decoder(path) if decoder else open_regular(path) as stream:
            beginning = stream.read(4)
            mark, encoding = marked_encoding(beginning)
            if encoding != "utf-8":
                parts = decoded_parts(stream, path, beginning, len(mark), encoding)
                recoded = io.BufferedReader(_AsUtf8(parts))
                _skip(recoded, position)
                yield recoded
                return
            if decoder is None:
                stream.seek(position)
                yield stream
                return
        with decoder(path) as stream:
            _skip(stream, position)
            yield stream
    except (EOFError, lzma.LZMAError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk, perhaps of what the caller writes
        raise RequestError(f"{path} cannot be unpacked: {error}") from None


def _skip(stream: IO[bytes], count: int) -> None:
    while count and (part := stream.read(min(count, _SKIPPED_AT_ONCE))):
        count -= len(part)


def is_converted(path: Path) -> bool:
    """Whether what is read of a file differs from its bytes: it is compressed, or neither UTF-8 nor binary."""
    if _decoder(path) is not None:
        return True
    with open_regular(path) as file:
        return marked_encoding(file.read(4))[1] != "utf-8"


def check_utf8(content: Path, path: Path) -> None:
    """Raise RequestError if a file for a library contains a NUL byte or is not UTF-8.

    Args:
        content: The path of the decompressed file.
        path: The path shown in messages.
    """
    position = 0
    with open_regular(content) as file:
        for part in decoded_parts(file, path, file.read(_SKIPPED_AT_ONCE), 0, "utf-8"):
            if "\0" in part:
                raise has_null(path, position + len(part[: part.index("\0")].encode("utf-8")))
            position += len(part.encode("utf-8"))


def lines_of(file: IO[bytes], path: Path) -> Iterator[str]:
    """Lines of an open text file without their ends; only a newline ends one, not Unicode's separators.

    Args:
        file: Open file, in UTF-8.
        path: Path of the file, for messages.

    Raises:
        RequestError: A line is not UTF-8, has a NUL byte, or is too long for a sentence.
    """
    number = 0
    while line := file.readline(_LONGEST_LINE + 2):
        number += 1
        content = line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line
        content = content.rstrip(b"\r\n")
        if len(content) > _LONGEST_LINE:
            raise RequestError(
                f"{path}, line {number:,}, has more than {_LONGEST_LINE:,} bytes: a line must be one sentence"
            )
        if b"\0" in content:
            raise has_null(path, content.index(b"\0"), number)
        try:
            yield content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise not_text(path, "utf-8", error.start, number) from None
