"""Text files of users: labels, lists, YAML, XML, JSON and TOML, read right, or refused with one message.

UTF-8 is read with or without a byte order mark, and UTF-16 and UTF-32 with one, which is how PowerShell and Excel save
text. XML is read in the encoding that it declares. Everything else is refused by file, byte and line.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import IO, Any
from xml.etree import ElementTree
from xml.parsers import expat

from ...regular_files import check_regular, marked_encoding, open_regular
from ..messages.errors import RequestError
from ..messages.text_sinks import printable

_MOST_BYTES = 1 << 28
"""Of a text file that is read whole: 256 MiB. Lists of a million images have 100 MB."""
_LONGEST_LINE = 1 << 20
"""Of a label: a polygon of 50,000 points."""
LONGEST_PATH = 4096
"""Of a line that names a file: Linux's PATH_MAX."""
_MOST_YAML = 1 << 20  # PyYAML reads a megabyte in seconds
_MOST_BY_ALIASES = 100_000  # values of a YAML file; nine lines of aliases can stand for billions
_LENGTH_SHOWN = 100
_PART = 1 << 16
_XML_STARTS = {b"<\0": "utf-16-le", b"\0<": "utf-16-be"}
_XML_DECLARED = re.compile(rb"\s*<\?xml[^>]*\bencoding\s*=\s*[\"']([A-Za-z0-9._-]+)[\"']")
_NO_ENCODINGS = ("idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined")  # of Python, not of text


def read_text(path: Path, most: int | None = _MOST_BYTES, missing: str | None = None) -> str:
    """The text of a file.

    Args:
        path: Path of the file.
        most: Maximum size in bytes; None for any.
        missing: Message if the file does not exist.

    Raises:
        RequestError: it cannot be read, is too large, is not a regular file, or is not text in a known encoding.
    """
    return decoded(read_bytes(path, most, missing), path)


def read_bytes(path: Path, most: int | None = _MOST_BYTES, missing: str | None = None) -> bytes:
    """The content of a file; RequestError as `read_text`."""
    try:
        with open_regular(path) as file:
            content = file.read() if most is None else file.read(most + 1)
    except FileNotFoundError:
        raise RequestError(missing or f"there is no file {printable(path)}") from None
    except OSError as error:
        raise RequestError(f"{printable(path)} cannot be read: {error.strerror or error}") from None
    if most is not None and len(content) > most:
        raise RequestError(f"{printable(path)} has more than {most:,} bytes: such a large file is refused")
    return content


def read_lines(path: Path, longest: int = _LONGEST_LINE) -> list[str]:
    """The lines of a text file, whichever line ends it has.

    Raises:
        RequestError: The file is unreadable, see `read_text`, or a line has more than `longest` characters.
    """
    lines = read_text(path).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for number, line in enumerate(lines, 1):
        if len(line) > longest:
            raise RequestError(
                f"{printable(path)}, line {number:,}, has {len(line):,} characters, and {longest:,} are the most"
            )
    return lines


def decoded(content: bytes, path: Path) -> str:
    """The text of bytes; RequestError names the byte and the line that are not text in a known encoding."""
    mark, encoding = marked_encoding(content)
    try:
        text = content[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        at = len(mark) + error.start
        raise not_text(path, encoding, at, content.count(b"\n", 0, at) + 1) from None
    if "\0" in text:
        before = text[: text.index("\0")]
        raise has_null(path, len(mark) + len(before.encode(encoding)), before.count("\n") + 1)
    return text


def not_text(path: Path, encoding: str, byte: int, line: int | None = None) -> RequestError:
    """The refusal of a file with a byte, counted from 0, that its encoding does not have."""
    known = encoding.upper().removesuffix("-LE").removesuffix("-BE")
    return RequestError(
        f"{_where(path, line)} is not {known} text: byte {byte:,} is wrong; save it as UTF-8, for example by "
        f"iconv -f LATIN1 -t UTF-8 if it is Latin-1"
    )


def has_null(path: Path, byte: int, line: int | None = None) -> RequestError:
    """The refusal of a file with a NUL byte, which is binary, or UTF-16 that does not name itself."""
    return RequestError(
        f"{_where(path, line)} is not text: byte {byte:,} is NUL; if it is UTF-16 without a byte order "
        f"mark, save it as UTF-8, for example by iconv -f UTF-16LE -t UTF-8"
    )


def not_there(path: Path, what: str) -> RequestError:
    """The refusal of a path that leads neither to a file nor to a folder, such as a pipe.

    Args:
        path: Path that was named.
        what: Name of what it should lead to, such as `text file or folder`.
    """
    try:
        check_regular(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        return RequestError(f"{printable(path)} cannot be read: {error.strerror}")
    return RequestError(f"there is no {what} {printable(path)}")


def _where(path: Path, line: int | None) -> str:
    return printable(path) if line is None else f"{printable(path)}, line {line:,},"


def parsed_json(text: str, path: Path) -> Any:
    """The JSON value of a text; RequestError with the path where it is none."""
    import json

    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{printable(path)} cannot be read as JSON: {error}") from None


def read_toml(path: Path, missing: str | None = None) -> dict[str, Any]:
    """The tables of a TOML file; RequestError where it cannot be read."""
    import tomllib

    text = read_text(path, missing=missing)
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{printable(path)} cannot be read: {error}") from None


def read_yaml(path: Path) -> Any:
    """The value of a YAML file, which runs no code; RequestError where it cannot be read, or its aliases multiply."""
    import yaml

    text = read_text(path, _MOST_YAML)
    loader = yaml.SafeLoader("")
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        known: dict[int, int] = {}
        if _written_out(node, known) > len(known) + _MOST_BY_ALIASES:
            raise RequestError(f"{printable(path)} has aliases that stand for more than {_MOST_BY_ALIASES:,} values")
        return loader.construct_document(node)
    except RequestError:
        raise
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        problem = " ".join(str(error).split()) or type(error).__name__
        raise RequestError(f"{printable(path)} cannot be read as YAML: {excerpt(problem)}") from None
    finally:
        loader.dispose()


def _written_out(node: Any, known: dict[int, int]) -> int:
    """How many nodes a YAML document has once each alias is replaced by what it stands for; too many for a circle."""
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = 2 * _MOST_BY_ALIASES  # what is met again before it is counted contains itself
    children = node.value if isinstance(node.value, list) else []
    parts = (part for child in children for part in (child if isinstance(child, tuple) else (child,)))
    known[id(node)] = 1 + sum(_written_out(part, known) for part in parts)
    return known[id(node)]


# --------------------------------------------------------------------------------------------------------------- XML


def read_xml(path: Path) -> ElementTree.Element:
    """The root of an XML file; RequestError where it cannot be read, or defines entities."""
    content = BytesIO(read_bytes(path))
    *_, root = xml_elements(content, path, "cannot be read as XML")  # the root is the last one to end
    return root


def xml_elements(file: IO[bytes], path: Path, refusal: str) -> Iterator[ElementTree.Element]:
    """Each element of an XML file when it ends, with what is in it, as `ElementTree.iterparse` gives them.

    Python's parser knows only UTF-8, UTF-16 and encodings of one byte, so the text is decoded before. Entities that a
    file defines are refused: a few of them can stand for gigabytes.

    Args:
        file: Open file.
        path: Path of the file, for messages.
        refusal: Beginning of a message after the path, such as `is not a TMX file`.

    Raises:
        RequestError: it is malformed, not in the encoding that it declares, or defines entities.
    """
    parser = expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True
    builder = ElementTree.TreeBuilder()
    ended: list[ElementTree.Element] = []

    def refuse_entity(name: str, *_: Any) -> None:
        raise RequestError(f"{printable(path)} {refusal}: it has the entity {excerpt(name)!r}")

    parser.StartElementHandler = lambda tag, given: builder.start(
        _qualified(tag), {_qualified(name): value for name, value in given.items()}
    )
    parser.EndElementHandler = lambda tag: ended.append(builder.end(_qualified(tag)))
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = refuse_entity
    parser.SkippedEntityHandler = refuse_entity
    try:
        for text in _xml_text(file, path):
            parser.Parse(text, False)
            yield from ended
            ended.clear()
        parser.Parse("", True)
        yield from ended
    except expat.ExpatError as error:
        raise RequestError(f"{printable(path)} {refusal}: {error}") from None


def _qualified(name: str) -> str:
    return f"{{{name}" if "}" in name else name


def _xml_text(file: IO[bytes], path: Path) -> Iterator[str]:
    part = file.read(_PART)
    mark, encoding = marked_encoding(part)
    declared = _XML_DECLARED.match(part)
    if part[:2] in _XML_STARTS:
        encoding = _XML_STARTS[part[:2]]
    elif not mark and declared is not None:
        encoding = declared[1].decode("ascii")
        if encoding.lower().startswith(("utf-16", "utf16", "ucs-2")):  # the declaration could be read, so it is wrong
            encoding = "utf-8"
    try:
        known = codecs.lookup(encoding).name
        "<".encode(encoding)  # which Python's codecs that are not of text refuse
        if known.replace("-", "_") in _NO_ENCODINGS:
            raise LookupError
    except LookupError:
        raise RequestError(
            f"{printable(path)} declares the encoding {encoding}, which is unknown: save it as UTF-8"
        ) from None
    yield from decoded_parts(file, path, part, len(mark), encoding)


def decoded_parts(file: IO[bytes], path: Path, part: bytes, position: int, encoding: str) -> Iterator[str]:
    """The text of an open file in parts.

    Args:
        file: Open file.
        path: Path of the file, for messages.
        part: Beginning of the file, which was read already.
        position: Length of the byte order mark in it.
        encoding: Name of a codec.

    Raises:
        RequestError: a byte is wrong.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    part = part[position:]
    while True:
        waiting = len(decoder.getstate()[0])
        try:
            text = decoder.decode(part, final=not part)
        except UnicodeError as error:
            start = getattr(error, "start", 0)
            raise not_text(path, encoding, position - waiting + start) from None
        if text:
            yield text
        if not part:
            return
        position += len(part)
        part = file.read(_PART)


def excerpt(text: str) -> str:
    """The beginning of a text for messages, however long the text is."""
    return printable(text if len(text) <= _LENGTH_SHOWN else f"{text[:_LENGTH_SHOWN]}...")
