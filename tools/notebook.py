"""Runs docs/golu.ipynb from top to bottom, in an empty folder, and stores what its cells print and draw.

python tools/notebook.py
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parent.parent / "docs" / "golu.ipynb"


def executed(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """A notebook with the outputs of its cells; an error in one of them is raised.

    Args:
        notebook: The notebook to run; it is changed.
        folder: The working directory of its commands.
    """
    # a backend named by the environment, as CI does, would keep pictures out of the cells
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    client = NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(folder)}})
    client.execute(env=environment)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of day
    return notebook


def main() -> None:
    """Writes the notebook anew."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        nbformat.write(executed(notebook, Path(folder)), NOTEBOOK)


if __name__ == "__main__":
    main()
