"""Where text from outside leaves the program: one function for each sink.

Names of files, classes, activations and recipes are anybody's: they may hold formulas, markup, terminal commands, bytes
that are not UTF-8. Each sink below shows them as they are, and obeys nothing in them:

    terminal        say, complain, console; printable for a name inside a sentence
    standard output say_data, for results that other programs read
    CSV             csv_text, csv_line
    Markdown        markdown_text
    LaTeX           latex_text
    HTML            html_text, through `finalize` of the templates, which then escape
    JSON in YAML    yaml_value
    file names      file_name, fitting_name
    figures         figures.py beside this module, through visible

docs/names.md shows what each does with the names of the tests. `print`, `csv.writer` and rich's consoles are used
nowhere else.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

LONGEST_NAME = 255
"""Maximum length of a file's name on common file systems, in bytes."""
_DIGITS = 8  # of a digest: enough to tell the names in a folder apart
_REORDERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # text that looks like another text
_LINE_BREAKS = frozenset("\u2028\u2029\x85")
_said: set[str] = set()


# -------------------------------------------------------------------------------------------------- text that is shown


def printable(name: str | Path) -> str:
    r"""A name for messages: whatever a terminal would not show, or would obey, is escaped.

    >>> printable("cat\x1b[2J\n.png")
    'cat\\x1b[2J\\n.png'
    """
    return "".join(c if c.isprintable() else _escape(c) for c in str(name))


def visible(text: str) -> str:
    r"""A text whose control characters are escaped, except for line breaks and tabs.

    Joiners of scripts and emoji stay, which `printable` escapes.

    >>> visible("line\nESC \x1b[2J")
    'line\nESC \\x1b[2J'
    """
    if text.isprintable():
        return text
    return "".join(_escape(c) if _is_control(c) else c for c in text)


def _is_control(letter: str) -> bool:
    if letter in "\n\t":
        return False
    return unicodedata.category(letter) in ("Cc", "Cs") or letter in _REORDERING or letter in _LINE_BREAKS


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


# ------------------------------------------------------------------------------------------------------------ terminal


def prepare_streams() -> None:
    """Makes standard output and error write what their encoding lacks as an escape; for the start of a program."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # a notebook's streams have none
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def say(text: str = "", end: str = "\n") -> None:
    """Print text for humans on standard output."""
    print(visible(text), end=end, flush=True)


def complain(text: str) -> None:
    """Print text for humans on standard error."""
    print(visible(text), file=sys.stderr, flush=True)


def say_data(text: str, end: str = "\n") -> None:
    """Prints a result that other programs read: as it is into a file or pipe, with control characters escaped on a
    terminal.

    Where the encoding of standard output lacks a character, that is escaped, with one warning.
    """
    stream: TextIO = sys.stdout
    if stream.isatty():
        text = visible(text)
    try:
        text.encode(stream.encoding or "utf-8")
    except UnicodeEncodeError:
        if "encoding" not in _said and not _has_surrogates(text):
            _said.add("encoding")
            complain(
                f"warning: standard output is {stream.encoding}, which lacks some characters of the results: they are "
                f"written as \\u escapes; set PYTHONIOENCODING=utf-8"
            )
        text = text.encode(stream.encoding or "utf-8", "backslashreplace").decode(stream.encoding or "utf-8")
    print(text, end=end, flush=True)


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def console(**settings: Any) -> Console:
    """Return a rich console without markup: text is printed verbatim, with control characters escaped.

    Args:
        settings: Arguments of `rich.console.Console`, such as `width`.
    """
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class PlainConsole(Console):
        """Escapes what it is given, before it is measured, and leaves rich's own control codes."""

        def render_str(self, text: str, **settings: Any) -> Any:
            return super().render_str(visible(text), **settings)

        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(visible(segment.text), segment.style)

    return PlainConsole(**{"markup": False, "emoji": False, "highlight": False, **settings})


# ----------------------------------------------------------------------------------------------------------------- CSV


def csv_text(records: Sequence[Mapping[str, Any]]) -> str:
    """Records as CSV (RFC 4180) with a line of headings; values are quoted where they must be, and never changed.

    A spreadsheet may compute a value that begins with `=`, `+`, `-` or `@`: import such a column as text.
    """
    return "".join([csv_line(list(records[0])), *(csv_line(list(record.values())) for record in records)])


def csv_line(values: Sequence[Any]) -> str:
    """A line of CSV with its end; bytes of a name that are not UTF-8 are escaped."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue().encode("utf-8", "backslashreplace").decode("utf-8")


# ------------------------------------------------------------------------------------------------------ marked-up text

_MARKDOWN = frozenset("\\`*_{}[]<>|~$&#!")


def markdown_text(text: str) -> str:
    """A text in a line or cell of GitHub's Markdown, where it is shown as it is."""
    shown = visible(text).replace("\n", " ").replace("\t", " ")
    return "".join(f"\\{c}" if c in _MARKDOWN else c for c in shown)


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # after the \\ of the line before it would be an argument of that
    "]": "{]}",
    "*": "{*}",  # likewise
    "±": r"$\pm$",
    "−": r"$-$",
    "–": "--",
    "†": r"\textdagger{}",
    "\n": " ",
    "\t": " ",
}


def latex_text(text: str) -> str:
    """A text for LaTeX, where it is set as it is; letters beyond Latin need XeLaTeX or LuaLaTeX and a font."""
    return "".join(_LATEX.get(letter, letter) for letter in visible(text))


def html_text(value: Any) -> Any:
    """A template's value before the template escapes it: text without what HTML cannot hold; the rest as it is."""
    return visible(value) if type(value) is str else value  # not of markup, which is a str too


def yaml_value(value: Any) -> str:
    """A JSON value in one line that YAML reads alike; JSON's escapes for emoji are two characters to some of its
    readers."""
    return json.dumps(_visible_inside(value), ensure_ascii=False)


def _visible_inside(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {_visible_inside(name): _visible_inside(inner) for name, inner in value.items()}
    return [_visible_inside(inner) for inner in value] if isinstance(value, (list, tuple)) else value


# ---------------------------------------------------------------------------------------------------------- file names


def file_name(name: str, taken: Iterable[str] = ()) -> str:
    """Return a file name of letters, digits, `-`, `.`, and `_`, with a digest if the name is already taken.

    Args:
        name: Any text.
        taken: The names of existing files, without suffixes.
    """
    plain = "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in name)
    cut = fitting_name(plain, "." * 16)
    return f"{fitting_name(cut, '.' * 32)}~{_digest(name)}" if cut in set(taken) else cut


def fitting_name(name: str, ending: str) -> str:
    """A name that is short enough for a file whose name is `ending` longer; what is cut is told apart by a digest."""
    room = LONGEST_NAME - len(_bytes(ending))
    if len(_bytes(name)) <= room:
        return name
    cut = _bytes(name)[: room - _DIGITS - 1].decode("utf-8", "ignore")
    return f"{cut}~{_digest(name)}"


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
