"""English: words that a native speaker would not use here, spelling, and what docstrings must say."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(ROOT.glob("packages/*/src/**/*.py"))
PROSE = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "packages/*/*.md", "packages/*/src/**/*.py", "tools/*.py", "tests/**/*.py")
    for path in ROOT.glob(pattern)
    if path.name != "test_prose.py"
)
# what is wrong, and what to write instead; codespell has other British spellings
WORDS = {
    r"\bbehind (a|an|the|each|its|their|Holm|every)\b": "after",
    r"(?<!there )\b(is|are) no (run folder|folder|file|JSON|number|COCO)\b": "is not a",
    r"\bfor ever\b": "forever",
    r"\bpublished are\b": "the paper has",
    r"\bso many (?!as\b|that\b)(images|steps|seeds|pixels|samples|pairs|optimizer)": "this many",
    r"\bof one's own\b": "of your own",
    r"\b1 (runs|images|seeds) are\b": "1 run is",
    r"\b\w*(tokenis|synchronis|normalis|standardis)(e|a|i)\w*": "-iz-",
}


@pytest.mark.parametrize("path", PROSE, ids=lambda path: str(path.relative_to(ROOT)))
def test_words(path):
    text = path.read_text(encoding="utf-8")
    found = [
        f"line {text.count(chr(10), 0, match.start()) + 1}: {match.group()!r}, write {better!r}"
        for pattern, better in WORDS.items()
        for match in re.finditer(pattern, text, re.IGNORECASE)
    ]
    assert found == []


def test_spelling():
    """codespell, as configured in pyproject.toml."""
    done = subprocess.run(
        [sys.executable, "-m", "codespell_lib"], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def public_functions() -> list[tuple[Path, ast.FunctionDef]]:
    found = []
    for path in SOURCES:
        for node in ast.parse(path.read_text()).body:
            members = node.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_") else [node]
            found += [(path, m) for m in members if isinstance(m, ast.FunctionDef) and not m.name.startswith("_")]
    return found


_SECTION = re.compile(r"^\s+(Args|Attributes|Raises):$")
_FRAGMENT = re.compile(r"^\s+\w[\w, ]*: (of|that|to|in|whose|as|where|what)\b")


def fragments(text: str) -> list[str]:
    """Lines of `Args:`, `Attributes:` and `Raises:` that go on after the name, such as `config: of the run.`."""
    found, inside = [], False
    for line in text.splitlines():
        inside = bool(_SECTION.match(line)) or (inside and '"""' not in line)
        if inside and _FRAGMENT.match(line):
            found.append(line.strip())
    return found


def test_arguments_are_described_by_full_noun_phrases():
    tools = sorted(ROOT.glob("tools/*.py"))
    found = {str(p.relative_to(ROOT)): lines for p in [*SOURCES, *tools] if (lines := fragments(p.read_text()))}
    assert found == {}


def test_a_fragment_is_found():
    assert fragments("    Args:\n        run: of a study.\n        size: The size.\n") == ["run: of a study."]


def test_docstrings_name_the_shapes_of_tensors():
    lacking = []
    for path, function in public_functions():
        arguments = [*function.args.args, *function.args.kwonlyargs]
        takes = any(a.annotation is not None and ast.unparse(a.annotation) == "Tensor" for a in arguments)
        said = ast.get_docstring(function) or ""
        if (
            takes
            and said
            and not re.search(r"\([^()]*\b(N|3|H|4)\b[^()]*\)|scalar|any shape|one shape|small tensor", said)
        ):
            lacking.append(f"{path.relative_to(ROOT)}:{function.lineno} {function.name}")
    assert lacking == []


def test_docstrings_name_the_requests_that_are_refused():
    """Where a public function itself raises RequestError, its docstring says when."""
    lacking = []
    for path, function in public_functions():
        raises = any(
            isinstance(node, ast.Raise)
            and isinstance(node.exc, ast.Call)
            and getattr(node.exc.func, "id", "") == "RequestError"
            for node in ast.walk(function)
        )
        said = ast.get_docstring(function) or ""
        inherited = function.name == "check" or function.name.endswith("_command")  # said by SelfChecking, Command
        if raises and "RequestError" not in said and not inherited:
            lacking.append(f"{path.relative_to(ROOT)}:{function.lineno} {function.name}")
    assert lacking == []
