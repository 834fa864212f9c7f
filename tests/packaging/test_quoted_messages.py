"""Each message on the page "When something goes wrong" is one that the sources print."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "troubleshooting.md"
_FEWEST_LETTERS = 9
_PREFIX = re.compile(r"^(golu-\w+|warning|RuntimeWarning): ")


def quoted() -> list[str]:
    text = PAGE.read_text(encoding="utf-8")
    return [line.strip() for block in re.findall(r"```text\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]


@cache
def trees() -> list[ast.Module]:
    return [ast.parse(path.read_text(encoding="utf-8")) for path in ROOT.glob("packages/*/src/**/*.py")]


@cache
def constants() -> dict[str, str]:
    """Texts that a module gives a name, such as the beginning of a message that others look for."""
    return {
        node.targets[0].id: node.value.value
        for tree in trees()
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    }


def template_of(node: ast.AST) -> str | None:
    """A text or f-string, with a NUL for what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return re.sub("\0+", "\0", "".join(map(part_of, node.values)))
    return None


def part_of(part: ast.expr) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    assert isinstance(part, ast.FormattedValue)
    return constants().get(part.value.id, "\0") if isinstance(part.value, ast.Name) else "\0"


@cache
def templates() -> list[re.Pattern[str]]:
    lines = {
        line.strip()
        for tree in trees()
        for node in ast.walk(tree)
        if (template := template_of(node)) is not None
        for line in template.splitlines()
    }
    enough = [line for line in lines if sum(map(str.isalpha, line)) >= _FEWEST_LETTERS]
    return [re.compile(".+".join(re.escape(part) for part in line.split("\0"))) for line in enough]


def is_printed(message: str) -> bool:
    """Whether a template fills to the message, or templates to its parts at semicolons and colons."""
    if message == "…" or any(template.fullmatch(message) for template in templates()):
        return True
    cuts = re.finditer("[;:] ", message)
    return any(is_printed(message[: cut.start()]) and is_printed(message[cut.end() :]) for cut in cuts)


@pytest.mark.parametrize("message", quoted())
def test_the_message_is_printed(message):
    bare = _PREFIX.sub("", message)
    assert any(map(is_printed, (message, bare, bare.removesuffix(":"))))


def test_a_message_that_is_not_printed_is_found():
    assert not is_printed("the loss became NaN in step 4")
    assert not is_printed("another process trains in runs/a; wait for it, or stop it")
