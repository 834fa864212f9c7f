"""Runs of version 0.2, whose task was `lm`: they lie below that name, and are runs of translation all the same."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from command_line import runner_in_this_process
from golu_core.studies import aggregate
from golu_core.training.runs.results import RESULT_FILE, read_result, write_result
from golu_core.training.tasks.task import task_of_run
from golu_translate.cli import COMMAND_LINE
from golu_translate.task import TASK
from translation_program import FOLDER, TINY, TRANSLATE, prepared

OLD = Path("runs/lm/transformer-numbers/golu/seed0")
TRAIN = ["train", "transformer-numbers", *TINY]


@pytest.fixture(scope="module")
def new(tmp_path_factory):
    """Where a run was trained."""
    cwd = tmp_path_factory.mktemp("new")
    prepared(cwd / "data")
    done = TRANSLATE.run(*TRAIN, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd


@pytest.fixture
def old(new, tmp_path):
    """The same run as version 0.2 left it."""
    shutil.copytree(new / "data", tmp_path / "data")
    shutil.copytree(new / FOLDER, tmp_path / OLD)
    result = read_result(tmp_path / OLD / RESULT_FILE)
    assert result.task == "translation"
    write_result(tmp_path / OLD / RESULT_FILE, replace(result, task="lm"))
    return tmp_path


@pytest.fixture
def run_here(monkeypatch, capfd):
    return runner_in_this_process(COMMAND_LINE, monkeypatch, capfd)


def test_its_program_knows_it(old, run_here):
    assert task_of_run(old / OLD) is TASK
    done = run_here("evaluate", str(OLD), cwd=old)
    assert done.returncode == 0 and done.stderr.rstrip().endswith("the same as in result.json, to the last digit")
    done = run_here(*TRAIN, cwd=old)
    assert done.returncode == 0 and "finished already: bleu" in done.stdout and str(OLD) in done.stdout


def test_it_resumes_where_it_lies_and_ends_with_the_same_bytes(new, old, run_here):
    (old / OLD / "result.json").unlink()
    shutil.rmtree(sorted((old / OLD / "checkpoints").iterdir())[-1])
    assert task_of_run(old / OLD) is TASK
    done = run_here(*TRAIN, cwd=old)
    assert done.returncode == 0, done.stderr
    assert not (old / FOLDER).exists()
    assert (old / OLD / "model.safetensors").read_bytes() == (new / FOLDER / "model.safetensors").read_bytes()
    assert read_result(old / OLD / RESULT_FILE).task == "translation"


def test_a_new_run_is_below_the_new_name_although_there_are_language_models(old):
    config = COMMAND_LINE.config(["transformer-numbers", *TINY, "--seed", "1", "--output-dir", str(old / "runs")])
    assert TASK.run_folder(config) == old / "runs/translation/transformer-numbers/golu/seed1"
    other = old / "runs/lm/transformer-numbers/golu/seed1"
    other.mkdir()
    (other / "config.json").write_text(json.dumps({"format": "golu-config/2", "recipe": "transformer-numbers"}))
    assert TASK.run_folder(config) == other
    (other / "config.json").write_text(json.dumps({"format": "golu-config/2", "sample_tokens": 5}))
    assert TASK.run_folder(config) == old / "runs/translation/transformer-numbers/golu/seed1"


def test_reports_compare_it_with_new_runs(old, run_here, capfd):
    assert run_here(*TRAIN, "--seed", "1", cwd=old).returncode == 0
    assert (old / "runs/translation/transformer-numbers/golu/seed1/result.json").exists()
    assert aggregate.main([str(old / "runs"), "--out", str(old / "report")]) == 0
    printed = capfd.readouterr().out
    assert "Translation" in printed and "Language models" not in printed
    summary = json.loads((old / "report" / "report.json").read_text())["summary"]
    assert {(row["task"], row["metric"], row["n"]) for row in summary if row["metric"] == "bleu"} == {
        ("translation", "bleu", 2)
    }


def test_the_version_is_that_of_the_distribution(run_here, tmp_path):
    assert run_here("--version", cwd=tmp_path).stdout.strip() == version("golu-lm")
