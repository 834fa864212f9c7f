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


# in messages and `--help`: what is wrong there, and the words of the field
MESSAGES = {
    r"\b(anew|made new)\b": "again, reinitialized",
    r"\bleft over\b": "unused, remaining",
    r"\bplaces?\b": "index, position, path, folder",
    r"\bof (your|their|its|one's) own\b": "your own ...",
    r"\b(is|are|was|were) (given|taken)\b|\btaken for\b": "passed, used, read as",
    r"\bgives? (a|an|no|it|the)\b": "returns",
    r"\btakes? (a|an|no|the)\b": "accepts, uses, needs",
    r"\bsays? (that|what|which|so|how)\b": "reports, lists, prints",
    r"\bwhat (it|is|was|an?|the|they|this|passes)\b": "name the thing",
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


def messages(source: str) -> list[tuple[int, str]]:
    """Strings of a program that are sentences: those with a space, other than docstrings of modules and functions."""
    tree = ast.parse(source)
    documented = [n for n in ast.walk(tree) if isinstance(n, (ast.Module, ast.ClassDef, ast.FunctionDef))]
    docstrings = {id(n.body[0].value) for n in documented if n.body and isinstance(n.body[0], ast.Expr)}
    return [
        (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and " " in node.value.strip()
        and id(node) not in docstrings
    ]


def clumsy(source: str) -> list[str]:
    return [
        f"line {line}: {match.group()!r}, write {better!r}"
        for line, text in messages(source)
        for pattern, better in MESSAGES.items()
        for match in re.finditer(pattern, text)
    ]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_messages_and_help_use_the_words_of_the_field(path):
    assert clumsy(path.read_text(encoding="utf-8")) == []


def test_a_clumsy_message_is_found():
    """In a message and in the help text of a flag, but not in a docstring."""
    assert len(clumsy('def f():\n    """It takes a file."""\n    raise ValueError("it takes no file")\n')) == 1
    assert len(clumsy('class Flags:\n    """Flags."""\n    out: str = ""\n    """A folder of your own."""\n')) == 1


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
