"""What changes between a stop and the continuation: where and how a run runs, who else is there, what computes it."""

from __future__ import annotations

import json
import shutil

import pytest

from faults import SHARED, TRAIN, run_folder, same_as
from golu_core.training.storage.locks import claim
from test_damage import content

TASKS = [pytest.param(task, marks=[] if task == "lm" else [pytest.mark.slow]) for task in TRAIN]
PLACE = {
    "the data moved": [],
    "loader processes": ["--num-workers", "1"],
    "checkpoints more often": ["--checkpoint-every", "1"],
}
# how often checkpoints are saved is golu-core's alone
PLACES = [
    pytest.param(task, change, marks=[] if task == "lm" else [pytest.mark.slow])
    for task in TRAIN
    for change in PLACE
    if task in SHARED or change != "checkpoints more often"
]


@pytest.mark.parametrize(("task", "change"), PLACES)
def test_place_changes_nothing(task, change, programs, data, whole, stopped, tmp_path):
    shutil.copytree(stopped(task), tmp_path / "run")
    shutil.copytree(data, tmp_path / "data")
    arguments = [*TRAIN[task], *PLACE[change], "--data-dir", str(tmp_path / "data")]
    ended = programs.run(task, *arguments, cwd=tmp_path / "run")
    assert ended.returncode == 0, ended.stderr
    if change == "checkpoints more often":  # the newest ones are kept, which are others now
        kept = tmp_path / "run" / run_folder(task) / "checkpoints"
        shutil.rmtree(kept)
        shutil.copytree(whole(task)[0] / run_folder(task) / "checkpoints", kept)
    same_as(tmp_path / "run", whole(task)[0], task)


@pytest.mark.parametrize("task", SHARED)
def test_a_second_run_in_the_folder_is_refused(task, programs, data, whole, stopped, tmp_path):
    shutil.copytree(stopped(task), tmp_path / "run")
    before = content(tmp_path / "run")
    arguments = [*TRAIN[task], "--data-dir", str(data)]
    lock = claim(tmp_path / "run" / run_folder(task))
    ended = programs.run(task, *arguments, cwd=tmp_path / "run")
    assert ended.returncode == 2 and "another process is training in" in ended.message
    assert content(tmp_path / "run") == before
    lock.release()
    assert programs.run(task, *arguments, cwd=tmp_path / "run").returncode == 0
    same_as(tmp_path / "run", whole(task)[0], task)


@pytest.mark.parametrize("task", SHARED)
def test_other_versions_are_said(task, programs, data, whole, stopped, tmp_path):
    shutil.copytree(stopped(task), tmp_path / "run")
    path = tmp_path / "run" / run_folder(task) / "run.json"
    values = json.loads(path.read_text())
    values["environment"]["numpy"] = "0.0.1"
    path.write_text(json.dumps(values))
    ended = programs.run(task, *TRAIN[task], "--data-dir", str(data), cwd=tmp_path / "run")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("the run began under other versions: numpy 0.0.1, now ") == 1
    same_as(tmp_path / "run", whole(task)[0], task)


OTHER = {
    "another seed": ["--seed", "1", "--output-dir", "moved"],
    "another rate": ["--optim.lr", "0.0123"],
    "another batch": ["--batch-size", "6"],
}


@pytest.mark.parametrize("change", OTHER)
@pytest.mark.parametrize("task", TASKS)
def test_another_config_is_refused(task, change, programs, data, stopped, tmp_path):
    """Also where the folder of the other run has been put at its place."""
    shutil.copytree(stopped(task), tmp_path / "run")
    if change == "another seed":
        place = tmp_path / "run" / "moved" / run_folder(task).relative_to("runs").with_name("seed1")
        shutil.copytree(tmp_path / "run" / run_folder(task), place)
    before = content(tmp_path / "run")
    ended = programs.run(task, *TRAIN[task], *OTHER[change], "--data-dir", str(data), cwd=tmp_path / "run")
    assert ended.returncode == 2 and "there, " in ended.stderr and ended.message, ended.stderr
    assert content(tmp_path / "run") == before
