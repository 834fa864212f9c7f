"""Makes docs/names.md of the names that the tests send through every command.

python tools/name_table.py > docs/names.md
"""

from __future__ import annotations

import html
import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from golu_core.training.messages.text_sinks import (
    csv_line,
    file_name,
    html_text,
    latex_text,
    markdown_text,
    printable,
    visible,
)

ROOT = Path(__file__).resolve().parent.parent
SINKS: dict[str, Callable[[str], str]] = {
    "terminal": printable,
    "figure": visible,
    "CSV": lambda name: csv_line([name])[:-1],
    "JSON": json.dumps,
    "Markdown": markdown_text,
    "LaTeX": latex_text,
    "HTML": lambda name: html.escape(html_text(name)),
    "file name": file_name,
}
"""What each place does with a name."""
_SHOWN = 24  # letters of a long name
HEAD = """# Names: what is shown of text from outside

Classes are named after folders, predictions after files, rows of a report after activations and recipes. You may call
them anything: a name is shown as it is wherever it goes, and nothing obeys it. These names are sent through every
command that prints or draws, by tests that read the output back. The table is made by `python tools/name_table.py`.

- **CSV** keeps every value, quoted as RFC 4180 has it, so that you can join tables by name. Excel and LibreOffice
  compute cells that begin with `=`, `+`, `-` or `@`: import such a column as text. For pandas:
  `read_csv(path, dtype={"class": str}, keep_default_na=False)`.
- **JSON** is ASCII and gives back the exact name. The bytes of a file name that is not UTF-8 are lone surrogates in it,
  as Python has them: `os.fsencode(name)` is the file's name again. In CSV they are written as escapes.
- **On a terminal** control characters are escaped, also in results. Results in a file or pipe (CSV, JSON lines,
  translations, generated text) have them as they are. If the encoding of standard output lacks a character, you get an
  escape and, for results, a warning: set `PYTHONIOENCODING=utf-8`.
- **Files** that are named after something longer than 255 bytes have its beginning and a digest of the whole.
- **LaTeX** sets letters beyond Latin with XeLaTeX or LuaLaTeX only. Figures have the letters of DejaVu Sans; others are
  drawn as boxes.
"""


def page() -> str:
    """The whole page."""
    sys.path.append(str(ROOT / "tests" / "core"))
    names: dict[str, str] = import_module("hostile_names").HOSTILE_NAMES
    rows = [["what", "name in Python", *SINKS], ["---"] * (len(SINKS) + 2)]
    for what, name in names.items():
        rows.append([what, _code(ascii(name)), *(_code(sink(name)) for sink in SINKS.values())])
    return HEAD + "\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _code(text: str) -> str:
    """A text as code in a cell of a table."""
    shown = "".join(c if c.isprintable() else _escaped(c) for c in text)
    shown = shown if len(shown) <= 3 * _SHOWN else f"{shown[:_SHOWN]}…"
    # Markdown inside of the element would be obeyed, such as a link
    plain = "".join(f"&#{ord(c)};" if c in "|`[]*_~\\!" else c for c in html.escape(shown))
    return f"<code>{plain}</code>"


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


if __name__ == "__main__":
    sys.stdout.buffer.write(page().encode())
