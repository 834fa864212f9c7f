"""`golu-core check` over all activations of an installed package: what works with each, and what fails how often.

    python tools/check_collection.py torch_activation [--json FILE]

Every class of modules that its modules define is asked for with default parameters. The compilers and exporters, which
take ten seconds each, are left out; `golu-core check package.module.Class` has them.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import pkgutil
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import nn

from golu_core.activation import load_activation
from golu_core.studies.checking import numerics, support
from golu_core.studies.checking.subject import Subject, outcome_of

_LEFT_OUT = {"torch.compile", "torch.export", "ONNX", "GPU"}


def classes_of(package: str) -> Iterator[str]:
    """Dotted names of the classes of modules that a package defines, each once."""
    root = importlib.import_module(package)
    names = [package, *(info.name for info in pkgutil.walk_packages(root.__path__, f"{package}."))]
    seen = set()
    for name in names:
        for found in vars(importlib.import_module(name)).values():
            ours = inspect.isclass(found) and issubclass(found, nn.Module) and found.__module__ == name
            if ours and not found.__name__.startswith("_") and found not in seen:
                seen.add(found)
                yield f"{name}.{found.__name__}"


def card(name: str) -> dict[str, Any]:
    """Which checks of an activation fail, or why it is none."""
    try:
        subject = Subject.of(load_activation(name))
    except ValueError as error:
        return {"name": name, "refused": str(error)}
    checks = [check for check in (*numerics.CHECKS, *support.CHECKS) if check.name not in _LEFT_OUT]
    lines = [outcome_of(check, subject) for check in checks]
    failed = {line.name: line.detail for line in lines if line.outcome == "fail"}
    return {"name": name, "failed": failed, "passed": sum(line.outcome == "pass" for line in lines)}


def main() -> None:
    """Prints how often each check fails, and writes all cards if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", help="that is imported")
    parser.add_argument("--json", type=Path, help="file for all cards")
    flags = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    cards = [card(name) for name in track(list(classes_of(flags.package)), "cards", transient=True)]
    checked = [one for one in cards if "failed" in one]
    counts = Counter(name for one in checked for name in one["failed"])
    print(f"{flags.package}: {len(cards)} classes, {len(cards) - len(checked)} refused, {len(checked)} checked")
    print(f"{sum(not one['failed'] for one in checked)} pass all checks\n\n| check | fails in |\n|---|---:|")
    for name, count in counts.most_common():
        print(f"| {name} | {count} |")
    if flags.json is not None:
        flags.json.write_text(json.dumps(cards, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
