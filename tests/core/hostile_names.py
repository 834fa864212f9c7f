"""Names that somebody gave to a class folder, a file, an activation or a recipe, and what a program might do with them.

`python tools/name_table.py` makes docs/names.md of them.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from accelerate.state import AcceleratorState

HOSTILE_NAMES = {
    "a formula for matplotlib, cut off": "$x_{$",
    "one of two that make a formula": "bill_$10",
    "the other": "bill_$20",
    "hidden from legends": "_private",
    "a spreadsheet's formula": "=SUM(A1:A9)",
    "a negative number": "-1",
    "a sign": "+1",
    "a spreadsheet's function": "@now",
    "separators and quotes": 'a,b;"c"',
    "rich's markup": "[red]x",
    "rich's markup that closes nothing": "[%b]",
    "an emoji code": ":x:",
    "Markdown": "| *a* `b` | [c][d] ~~e~~ #1!",
    "HTML": "<script>alert(1)<!--&amp;'",
    "LaTeX": r"100%_of #1 & {x} ~^\input",
    "Python's formats": "%s {0} {name!r}",
    "terminal commands": "\x1b[2J\x1b]0;title\x07",
    "one-byte terminal commands": "\x9b31m",
    "line ends": "two\nlines\r",
    "turned around": "gnp.\u202egpj.exe",
    "Chinese": "\u732b",
    "joined emoji": "\U0001f469\u200d\U0001f52c",
    "not UTF-8": os.fsdecode(b"caf\xe9"),
    "very long": "n" * 246,
}
"""By what is special about them; each can be the name of a file."""


def assert_harmless(*outputs: str) -> None:
    """Asserts that a terminal obeys nothing in what a program printed, and that it did not fail by surprise."""
    for text in outputs:
        assert "Traceback" not in text, text
        obeyed = {c for c in text if not c.isprintable() and c not in "\n\u200d"}
        assert not obeyed, (obeyed, text)


def printed_by(
    main: Callable[[Sequence[str]], int], *arguments: str, cwd: Path, encoding: str = "utf-8", stdin: bytes = b""
) -> SimpleNamespace:
    """Runs a program in this process, with standard output and error of an encoding: its `status`, `out` and `err`."""
    AcceleratorState._reset_state(reset_partial_state=True)  # or each run would have the precision of the first
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    given = mock.patch("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), given:
        try:
            status = main(arguments)
        except SystemExit as stop:  # tyro's, for a wrong flag
            status = stop.code
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode(encoding))  # type: ignore[attr-defined]
    return SimpleNamespace(status=status, out=texts[0], err=texts[1])
