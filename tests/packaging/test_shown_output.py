"""What a document shows below a command or below code is what the command or the code prints.

A block of `text` right after a block of `sh` or `python` is its output. `…` stands for anything within a line, and
a line that is only `…` for any number of lines. The shell blocks of a page run in their order, in one folder.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("packages/*/README.md")), *sorted(ROOT.glob("docs/*.md"))]
_INSIDE = r"((?:(?!```).)*?)"
_SHOWN = re.compile(rf"```(sh|python)\n{_INSIDE}```\n\n```text\n{_INSIDE}```", re.DOTALL)


def shown(path: Path, language: str) -> list[tuple[str, str]]:
    """The blocks of a language that are followed by their output, and the output."""
    found = _SHOWN.findall(path.read_text(encoding="utf-8"))
    return [(block, output) for of, block, output in found if of == language]


def pages(language: str) -> list[Path]:
    return [path for path in PAGES if shown(path, language)]


def is_printed(output: str, printed: str) -> bool:
    pattern = ""
    for line in output.strip("\n").splitlines():
        if line.strip() == "…":
            pattern += r"(?:[^\n]*\n)*?"
        else:
            pattern += r"[^\n]*".join(re.escape(part) for part in line.rstrip().split("…")) + r" *\n"
    return re.fullmatch(pattern, printed.strip("\n") + "\n") is not None


@pytest.mark.parametrize("path", pages("python"), ids=lambda path: str(path.relative_to(ROOT)))
def test_code_prints_what_is_shown(path):
    for block, output in shown(path, "python"):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block, str(path), "exec"), {})
        assert is_printed(output, printed.getvalue()), f"it prints:\n{printed.getvalue()}"


@pytest.mark.slow
@pytest.mark.parametrize("path", pages("sh"), ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_print_what_is_shown(path, tmp_path):
    programs = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "ACCELERATE_USE_CPU": "true"}
    for block, output in shown(path, "sh"):
        done = subprocess.run(
            ["bash", "-c", block],
            cwd=tmp_path,
            env={**os.environ, **programs},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=1200,
        )
        assert is_printed(output, done.stdout), f"{block}prints, with status {done.returncode}:\n{done.stdout}"


@pytest.mark.parametrize(
    ("output", "printed", "same"),
    [
        ("loss 1.5\n", "loss 1.5\n", True),
        ("loss 1.5\n", "loss 1.6\n", False),
        ("loss …  lr 0.1\n", "loss 1.6  lr 0.1\n", True),
        ("loss …  lr 0.1\n", "loss 1.6\nlr 0.1\n", False),
        ("a\n…\nd\n", "a\nb\nc\nd\n", True),
        ("a\n…\nd\n", "a\nb\nc\n", False),
    ],
)
def test_dots_stand_for_what_varies(output, printed, same):
    assert is_printed(output, printed) == same
