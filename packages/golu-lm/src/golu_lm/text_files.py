"""Plain text in files, compressed or not: read like Python's text mode, in parts that tokenize like the whole."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import IO, Any, NamedTuple

from golu_core.training import RequestError
from golu_core.training.storage import has_null, is_converted, not_text, opened

from .tokenizers import END_OF_TEXT


class Piece(NamedTuple):
    """A piece of text that is tokenized by itself.

    Attributes:
        text: A document, or a part that ends where GPT-2's pattern would split anyway.
        ends_document: Whether the end-of-text token follows.
        next_position: The position in the corpus after the piece.
    """

    text: str
    ends_document: bool
    next_position: int


# A space or newline before a character that is not white space. GPT-2's pattern always splits here, even if both sides
# are tokenized separately, because it attaches the last of several white spaces to the following text. Unicode's white
# spaces begin with the bytes C2, E1, E2, and E3, which are left out.
_CUT = re.compile(rb"[ \n](?=[!-~\xc3-\xe0\xe4-\xf4])")

_END_OF_TEXT = END_OF_TEXT.encode()
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_TAR = slice(257, 262)
_ARCHIVES = {b"PK\x03\x04": "zip", b"7z\xbc\xaf\x27\x1c": "7z", b"Rar!": "RAR"}


class TextFile:
    """One text file, read like Python's text mode.

    Every line end becomes one newline character, and a byte order mark is removed.

    Args:
        path: The file; gzip, bzip2, xz, and zstd files are decompressed while reading.
        separated: Whether `<|endoftext|>` separates documents; otherwise it is ordinary text.

    Attributes:
        length: Decompressed size in bytes.

    Raises:
        RequestError: The file is missing, is an archive, or cannot be decompressed.
    """

    _PART = 1 << 20
    _LONGEST_WITHOUT_CUT = 1 << 24

    def __init__(self, path: Path, separated: bool = True) -> None:
        self.path = path
        self.separated = separated
        with opened(path) as file:
            beginning = file.read(512)
            archive = next((name for magic, name in _ARCHIVES.items() if beginning.startswith(magic)), None)
            if archive is None and beginning[_TAR] == b"ustar":
                archive = "tar"
            if archive is not None:
                raise RequestError(f"{path} is a {archive} archive: unpack it first, and pass the folder")
            self.length = path.stat().st_size if not is_converted(path) else len(beginning) + _count_rest(file)
        self.start = len(_BYTE_ORDER_MARK) if beginning.startswith(_BYTE_ORDER_MARK) else 0

    def nearest_cut(self, near: int) -> int:
        """Return the byte nearest to a position at which the text can be split."""
        start = max(self.start, near - self._PART)
        with opened(self.path, start) as file:
            data = _read(file, 2 * self._PART)
        cuts = [start + _before_line_end(data, match.start()) for match in _CUT.finditer(data)]
        if cuts:
            return min(cuts, key=lambda cut: abs(cut - near))
        return start + _character_start(data, min(near - start, len(data) - 1))

    def pieces(self, position: int, end: int) -> Iterator[Piece]:
        """Yield the documents between two bytes, in parts of about a megabyte; raise RequestError if not UTF-8."""
        position = max(position, self.start)
        rest = b""
        with opened(self.path, position) as file:
            while position < end:
                part = _read(file, min(self._PART, end - position - len(rest)))
                if not part:
                    raise RequestError(f"{self.path} became shorter while it was read")
                rest += part
                at_end = position + len(rest) == end
                cut = len(rest) if at_end else _last_cut(rest)
                if not cut and len(rest) >= self._LONGEST_WITHOUT_CUT:  # no white space at all
                    cut = _character_start(rest, len(rest) - 1)
                if cut:
                    yield from self._documents(rest[:cut], position, at_end)
                    position, rest = position + cut, rest[cut:]

    def _documents(self, data: bytes, position: int, at_end: bool) -> Iterator[Piece]:
        parts = data.split(_END_OF_TEXT) if self.separated else [data]
        for number, part in enumerate(parts, 1):
            is_last = number == len(parts)
            after = position + len(part) + (0 if is_last else len(_END_OF_TEXT))
            if part or (at_end and len(parts) == 1):
                yield Piece(self._decoded(part, position), not is_last or at_end, after)
            position = after

    def _decoded(self, data: bytes, position: int) -> str:
        if b"\0" in data:
            raise has_null(self.path, position + data.index(b"\0"))
        try:
            return data.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
        except UnicodeDecodeError as error:
            raise not_text(self.path, "utf-8", position + error.start) from None


class TextCorpus:
    """Text files in the given order, as one text.

    Args:
        train: The files.
        test: The files of the test split; if empty, the end of `train` is held out.
        test_size: Fraction of the text to hold out.
        separated: Whether `<|endoftext|>` separates documents. The end of a file always does.
        source: Description of the text, for meta.json.

    Raises:
        RequestError: A file cannot be read, or a split has no text.
    """

    def __init__(
        self,
        train: Sequence[Path],
        test: Sequence[Path] = (),
        *,
        test_size: float = 0.1,
        separated: bool = True,
        source: dict[str, Any] | None = None,
    ) -> None:
        self.files = [TextFile(path, separated) for path in (*train, *test)]
        self.starts = list(accumulate((file.length for file in self.files), initial=0))
        self.length = self.starts.pop()
        self.source = source or {}
        for files, paths in ((self.files[: len(train)], train), (self.files[len(train) :], test)):
            if paths and not any(file.length for file in files):
                raise RequestError(
                    f"the text file {paths[0]} is empty"
                    if len(paths) == 1
                    else f"all {len(paths):,} text files are empty, such as {paths[0]}"
                )
        near = min(int(self.length * (1 - test_size)), self.length - 1)
        self.test_start = self.starts[len(train)] if test else self._nearest_cut(near)

    def _nearest_cut(self, near: int) -> int:
        start, file = next(
            (start, file)
            for start, file in zip(self.starts, self.files, strict=True)
            if start <= near < start + file.length
        )
        return start + file.nearest_cut(near - start)

    def size(self, split: str) -> int:
        """Return the number of bytes before the end of a split."""
        return self.test_start if split == "train" else self.length

    def pieces(self, split: str, position: int) -> Iterator[Piece]:
        """Yield documents, in parts of about a megabyte; raise RequestError if the text is not UTF-8."""
        end = self.size(split)
        position = max(position, self.test_start if split == "test" else 0)
        for start, file in zip(self.starts, self.files, strict=True):
            first, last = max(position - start, 0), min(end - start, file.length)
            if first < last:
                for piece in file.pieces(first, last):
                    yield piece._replace(next_position=start + piece.next_position)


def _count_rest(file: IO[bytes]) -> int:
    return sum(map(len, iter(lambda: file.read(1 << 20), b"")))


def _read(file: IO[bytes], count: int) -> bytes:
    """Read this many bytes, or up to the end of the file: a decoder's `read` may return fewer."""
    parts = []
    while count and (part := file.read(count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _last_cut(data: bytes) -> int:
    """Return the position of the last safe split in the data, 0 if there is none."""
    for match in reversed(list(_CUT.finditer(data, max(0, len(data) - 4096)))):
        return _before_line_end(data, match.start())
    cuts = [match.start() for match in _CUT.finditer(data)]
    return _before_line_end(data, cuts[-1]) if cuts else 0


def _before_line_end(data: bytes, cut: int) -> int:
    """Move the split before a carriage return, so that both characters of a line end stay together."""
    return cut - 1 if data[cut : cut + 1] == b"\n" and data[cut - 1 : cut] == b"\r" and cut else cut


def _character_start(data: bytes, place: int) -> int:
    """Return the first byte of the character at a position."""
    while place > 0 and data[place] & 0xC0 == 0x80:
        place -= 1
    return place
