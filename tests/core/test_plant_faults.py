"""Faults that are planted are faults: each changes a file that still compiles, and a test that looks there notices."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

import plant_faults

SOURCES = sorted(plant_faults.ROOT.glob("packages/*/src/**/*.py"))


@pytest.mark.parametrize("path", SOURCES[::9], ids=lambda path: path.name)
def test_every_fault_is_another_program_that_compiles(path):
    content = path.read_bytes()
    whole = ast.dump(ast.parse(content))
    for fault in plant_faults.faults_of(path):
        changed = content[: fault.start] + fault.after.encode() + content[fault.end :]
        assert ast.dump(ast.parse(changed)) != whole, fault
        assert content[fault.start : fault.end].decode() == fault.before


@pytest.mark.slow
def test_a_fault_is_noticed_by_a_test_that_looks_there(tmp_path):
    """A verdict that is turned for small effects is noticed by the test of verdicts, and not by that of means."""
    code = f"""
import shutil, sys
from pathlib import Path
sys.path.insert(0, {str(plant_faults.ROOT / "tools")!r})
import plant_faults
copy = Path("copy")
shutil.copytree(plant_faults.ROOT / "packages", copy / "packages", ignore=shutil.ignore_patterns("__pycache__"))
path = plant_faults.ROOT / "packages/golu-core/src/golu_core/studies/reporting/paired.py"
line = next(n for n, text in enumerate(path.read_text().splitlines(), 1) if "direction > 0" in text)
(fault,) = [f for f in plant_faults.faults_of(path) if f.line == line and f.kind == "constant"]
tests = "tests/studies/test_statistics.py::"
for name in ("test_a_claim_follows_the_sign_of_the_estimate", "test_mean_error_and_deviation_by_hand"):
    print(plant_faults.is_noticed(fault, copy.absolute(), [tests + name], 120))
print((copy / fault.path).read_bytes() == path.read_bytes())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["True", "False", "True"], done.stderr
