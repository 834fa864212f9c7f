"""Runs with an activation of a person's own: identity, trust, continuation, every task, studies and reports."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from command_line import runner_in_this_process, same_outcome, survives_kills
from golu_core.activation.names import loading
from golu_core.studies import aggregate, sweep
from golu_core.training.config.named_activations import ACTIVATION_FILE
from golu_core.training.tasks.task import installed_tasks
from golu_vision.cli import COMMAND_LINE
from vision_program import FAST, VISION

WAVE = """
import torch

class Wave(torch.nn.Module):
    def __init__(self, scale: float = 1.0):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(scale))

    def forward(self, x):
        return torch.relu(x) + self.scale * torch.sin(x) ** 2
"""
PLACE = Path("runs/vision/digits/mine.py-Wave,scale=0.5/seed0")


def arguments(root: Path, *more: str) -> list[str]:
    spec = ["--activation", "./mine.py:Wave(scale=0.5)"]
    return ["train", "digits", "--data.root", str(root), "--epochs", "1", *FAST, *spec, *more]


@pytest.fixture
def vision(monkeypatch, capfd):
    monkeypatch.setattr(loading, "_LOADED", {})
    return runner_in_this_process(COMMAND_LINE, monkeypatch, capfd)


@pytest.fixture(scope="module")
def trained(few_digits, tmp_path_factory):
    """A folder with mine.py and a finished run of it."""
    cwd = tmp_path_factory.mktemp("own")
    (cwd / "mine.py").write_text(WAVE)
    done = VISION.run(*arguments(few_digits), cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd


@pytest.fixture
def copied(trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_what_the_run_keeps(trained):
    folder = trained / PLACE
    config = json.loads((folder / "config.json").read_text())
    assert config["activation"] == "mine.py:Wave(scale=0.5)"
    assert (folder / ACTIVATION_FILE).read_text() == WAVE
    result = json.loads((folder / "result.json").read_text())
    assert result["activation"] == "mine.py:Wave(scale=0.5)" and result["activations"]["swapped"] == 19
    assert result["activations"]["left"] == []


def test_the_same_command_is_the_same_run_from_anywhere(trained, few_digits, vision, tmp_path):
    spec = f"{trained}/mine.py:Wave( scale = .5 )"
    words = ["train", "digits", "--data.root", str(few_digits), "--epochs", "1", *FAST, "--activation", spec]
    done = vision(*words, "--output-dir", str(trained / "runs"), cwd=tmp_path)
    assert done.returncode == 0 and "finished already" in done.stdout


def test_a_changed_file_is_another_activation(copied, few_digits, vision):
    (copied / "mine.py").write_text(WAVE + "# changed\n")
    done = vision(*arguments(few_digits), cwd=copied)
    assert done.returncode == 2 and "activation_source: sha256:" in done.stderr
    done = vision("evaluate", str(PLACE), "--activation", "./mine.py:Wave(scale=0.5)", cwd=copied)
    assert done.returncode == 2 and "--trust-activation uses the copy" in done.stderr


def test_a_folder_alone_runs_no_code(copied, vision):
    """Neither the copy in the folder nor a file of the same name beside it, whatever the folder says."""
    bomb = "raise SystemExit('it was run')\n"
    (copied / PLACE / ACTIVATION_FILE).write_text(bomb)
    (copied / "mine.py").write_text(bomb)
    done = vision("evaluate", str(PLACE), cwd=copied)
    assert done.returncode == 2 and "whose code is not golu's" in done.stderr and "it was run" not in done.stderr
    done = vision("evaluate", str(PLACE), "--trust-activation", cwd=copied)
    assert done.returncode == 2 and "it was changed" in done.stderr
    (copied / PLACE / ACTIVATION_FILE).unlink()
    done = vision("evaluate", str(PLACE), "--trust-activation", cwd=copied)
    assert done.returncode == 2 and "cannot be read" in done.stderr


@pytest.mark.parametrize("words", [["--trust-activation"], ["--activation", "mine.py:Wave(scale=0.5)"]])
def test_evaluation_of_what_is_trusted_or_named(words, copied, vision):
    if "--trust-activation" in words:
        (copied / "mine.py").unlink()
    done = vision("evaluate", str(PLACE), *words, cwd=copied)
    assert done.returncode == 0, done.stderr
    assert "the same as in result.json, to the last digit" in done.stderr


def test_overwrite_removes_the_copy_too(copied, few_digits, vision):
    (copied / "mine.py").write_text(WAVE + "# changed\n")
    done = vision(*arguments(few_digits, "--overwrite"), cwd=copied)
    assert done.returncode == 0, done.stderr
    assert (copied / PLACE / ACTIVATION_FILE).read_text().endswith("# changed\n")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("./mine.py:Wav", "did you mean Wave?"),
        ("./mine.py:Wave(scales=1)", "no parameter 'scales'"),
        ("./their.py:Wave", "there is no file their.py"),
        ("torch.nn.GLU", "is not an activation"),
        ("golu(beta=0)", "must be positive"),
        ("no_package.a:B", "there is no package 'no_package'"),
    ],
)
@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_wrong_specs_write_nothing(spec, message, more, vision, tmp_path):
    (tmp_path / "mine.py").write_text(WAVE)
    done = vision("train", "digits", *more, "--activation", spec, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and [path.name for path in tmp_path.iterdir()] == ["mine.py"]


@pytest.mark.parametrize("task", installed_tasks())
def test_every_task_takes_one(task, monkeypatch, capfd, tmp_path):
    """By a dry run of each quick recipe, which builds its network."""
    from importlib import import_module

    monkeypatch.setattr(loading, "_LOADED", {})
    (tmp_path / "mine.py").write_text(WAVE)
    package = installed_tasks()[task].package
    run = runner_in_this_process(import_module(f"{package}.cli").COMMAND_LINE, monkeypatch, capfd)
    quick = next(name for name, recipe in installed_tasks()[task].recipes.items() if not recipe.paper.results)
    done = run("train", quick, "--dry-run", "--activation", "./mine.py:Wave", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "swapped for mine.py:Wave" in done.stdout and "runs/" in done.stdout and "mine.py-Wave/seed0" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_and_continued(processes, few_digits, tmp_path):
    words = arguments(few_digits)
    words[words.index("--epochs") + 1] = "4"
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text(WAVE)
    done = VISION.run(*words, cwd=tmp_path / "whole", processes=processes)
    assert done.returncode == 0, done.stderr
    survives_kills(VISION, words, PLACE, tmp_path / "killed", processes, [3, 9])
    same_outcome(tmp_path / "killed" / PLACE, tmp_path / "whole" / PLACE)


STUDY = """
output_dir = "runs"
activations = ["golu", "golu(beta=0.5)", "./mine.py:Wave", "torch.nn.Hardswish"]
seeds = [0]

[[experiment]]
recipes = ["digits"]
flags = { epochs = 1, max_steps = 2 }
"""


@pytest.mark.slow
def test_a_study_and_its_report(tmp_path, monkeypatch, capsys):
    """Planned, trained, found finished, and in the tables after GoLU, under the names that were given."""
    (tmp_path / "mine.py").write_text(WAVE)
    (tmp_path / "study.toml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert sweep.main(["study.toml", "--trust-study"]) == 0, capsys.readouterr()
    folders = {path.parent.parent.name for path in tmp_path.glob("runs/vision/digits/*/seed0/result.json")}
    assert folders == {"golu", "golu,beta=0.5", "mine.py-Wave", "torch.nn.Hardswish"}
    capsys.readouterr()
    assert sweep.main(["study.toml", "--status"]) == 0
    assert capsys.readouterr().out.split() == ["recipe", "finished", "digits", "4"]
    assert aggregate.main(["runs", "--out", "report"]) == 0
    header = next(line for line in (tmp_path / "report" / "tables.md").read_text().splitlines() if "| recipe" in line)
    columns = [cell.strip() for cell in header.split("|")[4:-2]]
    assert columns == ["GoLU", "GoLU(beta=0.5)", "mine.py:Wave", "torch.nn.Hardswish"]
    config = tmp_path / "runs/vision/digits/mine.py-Wave/seed0/config.json"
    two = tmp_path / "two"
    shutil.copytree(tmp_path / "runs", two)
    shutil.rmtree(two / "vision/digits/mine.py-Wave")
    (tmp_path / "mine.py").write_text(WAVE + "# changed\n")
    (tmp_path / "study.toml").write_text(STUDY.replace("seeds = [0]", "seeds = [1]").replace('"golu", ', ""))
    assert config.exists() and sweep.main(["study.toml", "--trust-study"]) == 0
    assert aggregate.main(["runs"]) == 2
    assert "runs with mine.py:Wave have different code of it" in capsys.readouterr().err
