"""Packages that export names from their modules without importing these modules before a name is used.

A command line can check an activation's name, or refuse a flag, without the seconds that importing torch takes. What a
package exports is listed once, in the `__init__.pyi` next to its `__init__.py`, which type checkers and editors read:
`from .run import Run as Run`.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any


def front_door(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the functions `__getattr__` and `__dir__` of a package, whose stub lists what it exports.

    Args:
        package: The package's `__name__`.
    """

    @cache
    def homes() -> dict[str, str]:
        stub = Path(str(sys.modules[package].__file__)).with_suffix(".pyi")
        imports = (
            node for node in ast.parse(stub.read_text(encoding="utf-8")).body if isinstance(node, ast.ImportFrom)
        )
        return {name.name: "." * node.level + (node.module or "") for node in imports for name in node.names}

    def get_attribute(name: str) -> Any:
        if name == "__all__":
            return sorted(homes())
        if name.startswith("__") or name not in homes():
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(homes()[name], package), name)
        setattr(sys.modules[package], name, value)
        return value

    return get_attribute, lambda: sorted({*vars(sys.modules[package]), *homes()})
