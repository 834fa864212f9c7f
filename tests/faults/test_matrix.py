"""The page on reliability is that of the table, and the table names tests that are there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from matrix import MATRIX

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_that_of_the_table():
    command = [sys.executable, "tools/fault_table.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = (ROOT / "docs" / "reliability.md").read_text()
    assert page == done.stdout, "run: python tools/fault_table.py > docs/reliability.md"


def test_the_table_names_tests_that_are_there():
    named = {test for faults in MATRIX.values() for fault in faults for test in fault.tests}
    for test in named:
        path, _, function = test.partition("::")
        source = (ROOT / path).read_text()
        assert not function or f"def {function}(" in source, test
    here = {path.name for path in Path(__file__).parent.glob("test_*.py")} - {Path(__file__).name}
    functions = {
        f"tests/faults/{name}::{function}"
        for name in here
        for function in re.findall(r"^def (test_\w+)", (Path(__file__).parent / name).read_text(), re.MULTILINE)
    }
    unsaid = {test.partition("::")[2] for test in functions - named}
    assert unsaid == {"test_every_flag_is_drawn_from", "test_every_command_writes_or_is_known_to_write_nothing"}
