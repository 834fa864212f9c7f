"""Plants small faults in source files, one at a time, and runs the tests that should notice.

    python tools/plant_faults.py packages/golu-core/src/golu_core/studies/reporting/paired.py --tests tests/studies
    python tools/plant_faults.py FILE... --tests TESTS... --count 50 --json faults.json

Kinds: another comparison, another arithmetic operator, a negated condition, another constant, a call left out, and
another return value. The faults of a file are drawn with a seed. Files are changed in a copy of the packages, which
each run of the tests imports in place of the installed ones. Printed are the faults that no test noticed; exit status 1
if there are any.

    this process ── imports torch, SciPy, and pytest once, and none of ours
         └───────── a fork for each fault: puts the copy first on the path, and runs pytest there
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
IMPORTED = ("torch", "scipy.stats", "matplotlib.figure", "pytest", "hypothesis", "safetensors.torch", "rich.console")
_COMPARISONS = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.In: "not in",
    ast.NotIn: "in",
    ast.Is: "is not",
    ast.IsNot: "is",
}
_OPERATORS = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "/",
    ast.Div: "*",
    ast.FloorDiv: "*",
    ast.Mod: "*",
    ast.Pow: "*",
    ast.BitAnd: "|",
    ast.BitOr: "&",
}


@dataclass(frozen=True)
class Fault:
    """A change of one place of a file.

    Attributes:
        path: The file, from the root.
        line: The line, counted from 1.
        kind: Such as `comparison`.
        before, after: The source there.
        start, end: Its offsets in the encoded file.
    """

    path: str
    line: int
    kind: str
    before: str
    after: str
    start: int
    end: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line} {self.kind}: {self.before!r} -> {self.after!r}"


def faults_of(path: Path) -> list[Fault]:
    """Return all faults of a file, in its order."""
    content = path.read_bytes()
    starts = [0]
    for line in content.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    tree = ast.parse(content)
    found = []
    for kind, node, after in _changes(tree):
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
        before = content[start:end].decode()
        if before != after:
            name = str(path.resolve().relative_to(ROOT))
            found.append(Fault(name, node.lineno, kind, before, after, start, end))
    return found


def _changes(tree: ast.Module) -> Iterator[tuple[str, ast.expr | ast.stmt, str]]:
    """Yield kinds, nodes, and the source that takes the node's place."""
    left_out = _not_run(tree)
    for node in ast.walk(tree):
        if id(node) in left_out:
            continue
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            operator = _COMPARISONS[type(node.ops[0])]
            yield "comparison", node, f"({ast.unparse(node.left)} {operator} {ast.unparse(node.comparators[0])})"
        elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            yield (
                "arithmetic",
                node,
                f"({ast.unparse(node.left)} {_OPERATORS[type(node.op)]} {ast.unparse(node.right)})",
            )
        elif isinstance(node, ast.If | ast.IfExp | ast.While):
            yield "condition", node.test, f"(not ({ast.unparse(node.test)}))"
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
            value = not node.value if isinstance(node.value, bool) else node.value + 1
            yield "constant", node, repr(value)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            yield "call left out", node, "None"
        elif isinstance(node, ast.Return) and node.value is not None:
            yield "return", node, "return None"


def _not_run(tree: ast.Module) -> set[int]:
    """Return the nodes that no test can notice: annotations, decorators, and what runs for type checkers alone."""
    found: set[int] = set()
    for node in ast.walk(tree):
        parts: list[ast.AST | None] = [*getattr(node, "decorator_list", ())]
        if isinstance(node, ast.arg | ast.AnnAssign):
            parts.append(node.annotation)
        elif isinstance(node, ast.FunctionDef):
            parts.append(node.returns)
        elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "__name__ == '__main__'"):
            parts.append(node)
        for part in parts:
            found |= {id(inner) for inner in ast.walk(part)} if part is not None else set()
    return found


def is_noticed(fault: Fault, copy: Path, tests: list[str], seconds: float) -> bool:
    """Whether the tests fail, or do not end in time, with the fault in a copy of the packages."""
    file = copy / fault.path
    whole = file.read_bytes()
    file.write_bytes(whole[: fault.start] + fault.after.encode() + whole[fault.end :])
    try:
        return _status(copy, tests, seconds) != 0
    finally:
        file.write_bytes(whole)


def _status(copy: Path, tests: list[str], seconds: float) -> int:
    """Return the exit status of the tests in a fork, -1 where they take too long."""
    child = os.fork()
    if child == 0:
        _run_tests(copy, tests)
    deadline = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return -1
        time.sleep(0.05)


def _run_tests(copy: Path, tests: list[str]) -> None:
    """Become a run of pytest, and end with its status."""
    os.setsid()
    sources = [str(source) for source in sorted(copy.glob("packages/*/src"))]
    sys.path[:0] = sources
    os.environ["PYTHONPATH"] = os.pathsep.join(sources)
    sys.dont_write_bytecode = True  # two faults of one size within a second would share a compiled file
    os.chdir(ROOT)
    output = os.open(os.devnull, os.O_WRONLY)
    os.dup2(output, 1)
    os.dup2(output, 2)
    status = 1
    try:
        status = int(importlib.import_module("pytest").main(["-x", "-q", "-p", "no:cacheprovider", *tests]))
    finally:
        os._exit(status)


def main() -> int:
    """Plant, run, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="source files")
    parser.add_argument("--tests", nargs="+", required=True, help="what pytest runs, such as files or `-k WORD`")
    parser.add_argument("--count", type=int, default=20, help="faults in each file (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default: 0)")
    parser.add_argument("--json", type=Path, help="file for the results")
    flags = parser.parse_args()
    for name in IMPORTED:
        importlib.import_module(name)
    records: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        shutil.copytree(ROOT / "packages", copy / "packages", ignore=shutil.ignore_patterns("__pycache__"))
        began = time.monotonic()
        if _status(copy, flags.tests, 3600) != 0:
            print("the tests fail without any fault")
            return 2
        allowed = 30 + 3 * (time.monotonic() - began)
        for path in flags.files:
            found = faults_of(path)
            drawn = sorted(random.Random(flags.seed).sample(found, min(flags.count, len(found))), key=lambda f: f.start)
            for fault in drawn:
                noticed = is_noticed(fault, copy, flags.tests, allowed)
                records.append({**asdict(fault), "noticed": noticed})
                if not noticed:
                    print(f"not noticed: {fault}", flush=True)
    counts = Counter(record["path"] for record in records if record["noticed"])
    for name, count in Counter(record["path"] for record in records).items():
        print(f"{name}: {counts[name]} of {count} noticed")
    if flags.json is not None:
        flags.json.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    return int(counts.total() < len(records))


if __name__ == "__main__":
    sys.exit(main())
