"""docs/own-task.md: its files are extracted, and its commands run."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "own-task.md"
RUN = Path("runs/tabular/tumors/golu/seed0")


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """The page's files, with the metadata that an installation would have."""
    folder = tmp_path_factory.mktemp("my-tabular")
    files = dict(re.findall(r"```\w+ file=(\S+)\n(.*?)```", PAGE.read_text(), re.DOTALL))
    assert len(files) == 5
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder / "my_tabular" / "__init__.py").touch()
    project = tomllib.loads(files["pyproject.toml"])["project"]
    points = "\n".join(
        f"[{group}]\n" + "\n".join(f"{name} = {value}" for name, value in entries.items())
        for group, entries in project["entry-points"].items()
    )
    metadata = folder / "my_tabular-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    (metadata / "entry_points.txt").write_text(points)
    return folder


def page_commands() -> list[list[str]]:
    (block,) = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [shlex.split(line) for line in block.splitlines() if not line.startswith("pip ")]


def run(package: Path, words: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    module, *arguments = words
    environment = {**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1", "COLUMNS": "160"}
    command = [sys.executable, "-m", module.replace("-", "_"), *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
def test_the_pages_commands_run(package, tmp_path):
    printed = {}
    for words in page_commands():
        done = run(package, words, tmp_path)
        assert done.returncode == 0, (words, done.stderr)
        printed[" ".join(words)] = done.stdout + done.stderr
    assert "tumors" in printed["my-tabular recipes"]
    assert "2 relu swapped for golu" in printed["my-tabular train tumors --dry-run"]
    result = json.loads((tmp_path / RUN / "result.json").read_text())
    assert result["task"] == "tabular" and result["metrics"]["accuracy"] > 90
    assert result["environment"]["my-tabular"] == "0.1.0"
    assert "the same as in result.json" in printed[f"my-tabular evaluate {RUN}"]
    sweep = next(text for command, text in printed.items() if "sweep" in command)
    assert sweep.count("-m my_tabular train tumors") == 4
    assert "Tables of numbers" in printed["golu-core aggregate runs"]
    assert "accuracy (%)" in printed["golu-core aggregate runs"]


@pytest.mark.slow
def test_the_page_s_task_continues_bit_for_bit(package, tmp_path):
    def weights(folder: str, *flags: str) -> bytes:
        done = run(package, ["my-tabular", "train", "tumors", "--output-dir", folder, *flags], tmp_path)
        assert done.returncode == 0, done.stderr
        return (tmp_path / folder / Path(*RUN.parts[1:]) / "model.safetensors").read_bytes()

    whole = weights("whole", "--checkpoint-every", "10")
    weights("cut", "--checkpoint-every", "10")
    folder = tmp_path / "cut" / Path(*RUN.parts[1:])
    for name in ("result.json", "model.safetensors"):
        (folder / name).unlink()
    newest = sorted((folder / "checkpoints").iterdir())[-1]
    for file in newest.iterdir():
        file.unlink()
    newest.rmdir()
    assert weights("cut", "--checkpoint-every", "10") == whole
