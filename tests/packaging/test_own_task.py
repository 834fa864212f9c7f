"""`golu-core new-task`, and docs/own-task.md, which quotes its files: they are written, and the page's commands run."""

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

from golu_core.studies import new_task
from golu_core.training.messages.errors import RequestError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "own-task.md"
RUN = Path("runs/my-tabular/tumors/golu/seed0")


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """A new task, with the metadata that an installation would have."""
    folder = tmp_path_factory.mktemp("work") / "my-tabular"
    assert new_task.main(["my-tabular", "--out", str(folder)]) == 0
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
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


def test_the_page_quotes_the_files_of_a_new_task():
    quoted = dict(re.findall(r"```\w+ file=(\S+)\n(.*?)```", PAGE.read_text(), re.DOTALL))
    written = dict(new_task.task_files("my-tabular"))
    assert written.pop("my_tabular/__init__.py") == ""
    assert quoted == written


def test_a_new_task_has_its_name_everywhere(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert new_task.main(["wind-power"]) == 0
    assert "written: wind-power/pyproject.toml and 5 other files" in capsys.readouterr().out
    files = [path for path in (tmp_path / "wind-power").rglob("*") if path.is_file()]
    assert len(files) == 6 and not any(
        "tabular" in f"{path} {path.read_text()}".replace("Tabular", "") for path in files
    )
    assert new_task.main(["wind-power"]) == 2 and "name a new one by --out" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["Wind", "wind_power", "-wind", "2wind", "wind-", "golu-wind", "../wind", ""])
def test_names_that_no_package_can_have_are_refused(name):
    with pytest.raises(RequestError, match="name"):
        new_task.task_files(name)


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
    assert result["task"] == "my-tabular" and result["metrics"]["accuracy"] > 90
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
