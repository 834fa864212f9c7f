"""How an activation is called: a name of the registry, or what a package or a file has, with parameters if wanted.

    golu    golu(beta=0.5)    torch.nn.Hardswish    some_package.module:Name(param=2)    ./mine.py:Snake(a=0.2)

Reading a text imports nothing: parameters are Python literals, and only `loading` imports what is named.
"""

from __future__ import annotations

import ast
import hashlib
import re
import unicodedata
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

_WORDS = {"true": True, "false": False, "none": None}  # as TOML and JSON write them
_LONGEST_FOLDER = 100
_LONGEST = 1024  # characters; the time to read a text of nothing but parentheses grows with their square
_PLAIN = re.compile(r"[A-Za-z0-9_.,=+-]+")


@dataclass(frozen=True)
class ActivationSpec:
    """What a text names.

    Attributes:
        kind: `name` (of the registry or an entry point), `package` or `file`.
        head: all but the parameters, in one spelling: `golu`, `torch.nn.Hardswish`, `mine.py:Snake`.
        parameters: The parameters by name, sorted by name.
        path: The path of the file, as it was written. It is not part of the activation's identity.
    """

    kind: Literal["name", "package", "file"]
    head: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None

    @property
    def text(self) -> str:
        """The one spelling under which results store it."""
        if not self.parameters:
            return self.head
        return f"{self.head}({', '.join(f'{name}={value!r}' for name, value in self.parameters.items())})"

    @property
    def own_name(self) -> str:
        """Of the class or function in its file."""
        return self.head.rpartition(":")[2]


def parse_spec(text: str) -> ActivationSpec:
    """What a text names; ValueError where it names nothing."""
    _check_text(text)
    spec = _spec_of(text)
    _check_length(spec.text)  # or what a run stores could not be read back
    return spec


def _spec_of(text: str) -> ActivationSpec:
    head, parameters = _split(text.strip())
    path, colon, name = head.rpartition(":")
    if colon and path.endswith(".py"):
        _check_name(name, text)
        file = Path(path)
        return ActivationSpec("file", f"{file.name}:{name}", parameters, file)
    if head.endswith(".py"):
        raise ValueError(f"{head} is a file: name an object in it, as {head}:Name")
    if not re.fullmatch(r"[^\W\d]\w*([.:][^\W\d]\w*)*", head) or head.count(":") > 1:
        plain = head.lower().replace("-", "_")  # gelu-tanh
        if re.fullmatch(r"[^\W\d]\w*", plain):
            return ActivationSpec("name", plain, parameters)
        raise ValueError(
            f"{text!r} does not name an activation: write a name such as golu, package.module:Name, or ./file.py:Name"
        )
    if "." not in head and ":" not in head:
        return ActivationSpec("name", head, parameters)
    return ActivationSpec("package", head.replace(":", "."), parameters)


def _check_text(text: str) -> None:
    """Raises ValueError for text that no message, folder or terminal could show as it is."""
    _check_length(text)
    odd = next((letter for letter in text.strip() if unicodedata.category(letter) in ("Cc", "Cs")), None)
    if odd is not None:
        raise ValueError(f"{text!r} does not name an activation: it contains the character {odd!r}")


def _check_length(text: str) -> None:
    if len(text) > _LONGEST:
        raise ValueError(f"{text[:40]!r}... has {len(text):,} characters, and an activation has at most {_LONGEST:,}")


def _check_name(name: str, text: str) -> None:
    if not name.isidentifier():
        raise ValueError(f"{text!r} does not name an object in the file: write ./file.py:Name")


def _split(text: str) -> tuple[str, dict[str, Any]]:
    """What stands before the parameters, and these."""
    if not text.endswith(")"):
        return text, {}
    for place, letter in enumerate(text):  # a folder's name may have a parenthesis, too
        if letter != "(":
            continue
        try:
            with warnings.catch_warnings():  # of unusual literals, such as '\\d'
                warnings.simplefilter("ignore")
                call = ast.parse(f"f{text[place:]}", mode="eval").body
        except (SyntaxError, ValueError, MemoryError, RecursionError):  # the last two of deep nesting
            continue
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
            return text[:place].strip(), _literals(call, text)
    raise ValueError(f"the parameters of {text!r} cannot be read: write them as Name(param=0.5)")


def _literals(call: ast.Call, text: str) -> dict[str, Any]:
    if call.args:
        raise ValueError(f"name the parameters of {text!r}, as Name(param=0.5)")
    found: dict[str, Any] = {}
    for keyword in call.keywords:
        if keyword.arg is None or keyword.arg in found:
            raise ValueError(f"the parameters of {text!r} must each be named once, as Name(param=0.5)")
        value = keyword.value
        if isinstance(value, ast.Name) and value.id in _WORDS:
            found[keyword.arg] = _WORDS[value.id]
            continue
        try:
            found[keyword.arg] = _plain_value(value)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            raise ValueError(
                f"{keyword.arg} of {text!r} must be a plain value such as 0.5, true or 'text', not an expression"
            ) from None
    return dict(sorted(found.items()))


def _plain_value(expression: ast.expr) -> Any:
    """The value of a literal that can be written back as text, always in the same way.

    Of what `ast.literal_eval` reads, an infinity, an ellipsis and an integer of thousands of digits cannot be written
    back, and the order of a set's text differs from process to process.

    Raises:
        ValueError, TypeError, SyntaxError, MemoryError, RecursionError: it is no such literal.
    """
    if any(isinstance(part, (ast.Set, ast.Call)) for part in ast.walk(expression)):
        raise ValueError("a set")
    value = ast.literal_eval(expression)
    if ast.literal_eval(repr(value)) != value:
        raise ValueError("an unsupported value")
    return value


def folder_name(text: str) -> str:
    """A folder's name for an activation, readable and safe on every file system; a registry's name as it is."""
    name = text.replace(" ", "").replace(":", "-").replace("(", ",").replace(")", "")
    if _PLAIN.fullmatch(name) and len(name) <= _LONGEST_FOLDER:
        return name
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    plain = "".join(letter if _PLAIN.fullmatch(letter) else "_" for letter in name)
    return f"{plain[: _LONGEST_FOLDER - 9]}-{digest}"
