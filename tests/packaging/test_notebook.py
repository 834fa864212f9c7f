"""The notebook runs from top to bottom, and the page holds what it printed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
import pytest

import notebook

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    stored = nbformat.read(notebook.NOTEBOOK, as_version=4)
    given = nbformat.read(notebook.NOTEBOOK, as_version=4)
    for cell in given.cells:  # two runs in place of six
        cell.source = cell.source.replace("--seeds 0 1 2", "--seeds 0")
    assert [cell.source for cell in given.cells] != [cell.source for cell in stored.cells]
    new = notebook.executed(given, tmp_path)
    assert [kinds(cell) for cell in new.cells] == [kinds(cell) for cell in stored.cells], (
        "run: python tools/notebook.py"
    )
    assert (tmp_path / "report" / "report.html").exists()


def test_pictures_are_stored_whatever_backend_the_environment_names(tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    cell = nbformat.v4.new_code_cell("import matplotlib.pyplot as plt\nplt.plot([0, 1]);")
    new = notebook.executed(nbformat.v4.new_notebook(cells=[cell]), tmp_path)
    assert kinds(new.cells[0]) == [["image/png", "text/plain"]]


def kinds(cell: nbformat.NotebookNode) -> list[list[str]]:
    """What each output of a cell is."""
    return [sorted(output.get("data", {"text": ""})) for output in cell.get("outputs", [])]


def test_the_stored_outputs_are_of_this_notebook():
    stored = nbformat.read(notebook.NOTEBOOK, as_version=4)
    nbformat.validate(stored)
    text = notebook.NOTEBOOK.read_text()
    assert "image/png" in text and "text/markdown" in text
    assert "Traceback" not in text and "/tmp/" not in text and str(ROOT) not in text
