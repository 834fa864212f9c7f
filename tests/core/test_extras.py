"""Results come before extras: whatever fails in pictures, samples and scores of samples is one warning, in any task.

The tasks and what they write are found by their entry points; a file that a task writes is either one without which the
run cannot be used, and has its checksum in result.json, or an extra.
"""

from __future__ import annotations

import fnmatch
import importlib
import json
from collections import Counter
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

from detect_program import FAST as DETECT_FAST
from detect_program import copy_few
from diffusion_program import TINY as DIFFUSION_TINY
from golu_core.training.loop.run import Run
from golu_core.training.loop.steps import Steps
from golu_core.training.messages.errors import RequestError
from golu_core.training.runs.failures import FAILURE_FILE, Failure, read_failure, write_failure
from golu_core.training.storage import ownership
from golu_core.training.tasks.task import installed_tasks
from golu_detect.samples import write_digit_scenes
from lm_program import TINY as LM_TINY
from tiny_task import tiny_config, train
from translation_program import TINY as TRANSLATION_TINY
from translation_program import prepared

DETECT_TINY = [*DETECT_FAST, "--max-steps", "2"]
RUNS = {
    "vision": ["mlp-digits", "--max-steps", "4"],
    "lm": ["babygpt-pydocs", *LM_TINY, "--steps", "4"],
    "translation": ["transformer-numbers", *TRANSLATION_TINY, "--data.name", "numbers-en-de"],
    "segmentation": ["deeplabv3-digits", *DETECT_TINY],
    "detection": ["fasterrcnn-digits", *DETECT_TINY],
    "diffusion": ["ddpm-digits", *DIFFUSION_TINY, "--max-steps", "4"],
}
TASK_OF = {"segmentation": "detect", "detection": "detect"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    top = tmp_path_factory.mktemp("data")
    prepared(top)
    copy_few(write_digit_scenes(tmp_path_factory.mktemp("scenes") / "digit-scenes"), top)
    return top


def command(name: str, data: Path) -> list[str]:
    return ["train", *RUNS[name], "--data-dir", str(data), "--num-workers", "0"]


def run(name: str, arguments: list[str]) -> int:
    AcceleratorState._reset_state(reset_partial_state=True)
    task = installed_tasks()[TASK_OF.get(name, name)]
    status: int = importlib.import_module(f"{task.package}.cli").COMMAND_LINE.main(arguments)
    return status


def test_every_task_is_run():
    assert {TASK_OF.get(name, name) for name in RUNS} == set(installed_tasks())


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n != "detection" else [pytest.mark.slow]) for n in RUNS])
def test_an_extra_that_raises_is_one_warning(name, data, tmp_path, monkeypatch, capfd):
    """Each file of the task's layout that is not in result.json's checksums fails, and so do the curves."""
    monkeypatch.chdir(tmp_path)
    outputs = [*installed_tasks()[TASK_OF.get(name, name)].outputs, "curves.png"]
    needed = {"classes.json", "subwords.json"}
    refused: Counter[str] = Counter()
    begin = ownership.begin_partial

    def failing(path: Path) -> Path:
        if "seed0" in path.parts:
            inside = "/".join(path.parts[path.parts.index("seed0") + 1 :])
            pattern = next((p for p in outputs if fnmatch.fnmatchcase(inside, p)), None)
            if pattern is not None and inside not in needed:
                refused[pattern] += 1
                raise ValueError("$x_{$ is no formula\nParseException: Expected end of text")
        return begin(path)

    monkeypatch.setattr(ownership, "begin_partial", failing)
    status = run(name, command(name, data))
    printed = capfd.readouterr()
    assert status == 0 and "Traceback" not in printed.err, printed.err
    assert len(refused) >= 2, refused
    warnings = Counter(line.split(" could not be made")[0] for line in printed.err.splitlines() if "could not" in line)
    assert warnings == {f"warning: {pattern}": 1 for pattern in refused}, printed.err
    folder = next((tmp_path / "runs").glob("*/*/*/seed0"))
    result = json.loads((folder / "result.json").read_text())
    assert (folder / "model.safetensors").exists()
    assert needed & {p.name for p in folder.iterdir()} <= result["files"].keys()
    assert not (folder / "extras-pending.json").exists()
    assert run(name, command(name, data)) == 0 and "finished already" in capfd.readouterr().out


def test_what_the_disk_refused_is_made_by_the_same_command(tmp_path, monkeypatch, capfd):
    def refuse(*arguments):
        raise OSError(28, "No space left on device")

    config = tiny_config(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("golu_core.training.runs.folder.save_curves", refuse)
        train(config)
    folder = next((tmp_path / "runs").glob("*/*/*/seed0"))
    assert "No space left on device); the same command tries again" in capfd.readouterr().err
    first = json.loads((folder / "result.json").read_text())
    assert not (folder / "curves.png").exists()
    train(config)
    assert (folder / "curves.png").exists() and not (folder / "extras-pending.json").exists()
    again = json.loads((folder / "result.json").read_text())
    assert [again[k] for k in ("metrics", "steps", "config_sha256")] == [
        first[k] for k in ("metrics", "steps", "config_sha256")
    ]
    train(config)
    assert "finished already" in capfd.readouterr().out


def test_the_result_stays_while_extras_are_made_again(tmp_path, monkeypatch):
    """A run that has its result never loses it, whatever comes of the pictures that a kill prevented."""
    config = tiny_config(tmp_path)
    train(config)
    folder = next((tmp_path / "runs").glob("*/*/*/seed0"))
    (folder / "extras-pending.json").write_text("{}")

    def broken(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "finish", broken)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    assert json.loads((folder / "result.json").read_text())["steps"] == 4


# ------------------------------------------------------------------------------------------------------------- failures


def test_a_run_that_its_numbers_end_says_so_until_it_goes_on(tmp_path, monkeypatch):
    from golu_core.training.messages.errors import RunFailure

    config = tiny_config(tmp_path, checkpoint_every=1)
    take = Steps.take
    with monkeypatch.context() as patch:
        patch.setattr(Steps, "take", lambda self, piece, loss: take(self, piece, loss * float("nan")))
        with pytest.raises(RunFailure, match="the loss of step 1 is nan"):
            train(config)
    folder = next((tmp_path / "runs").glob("*/*/*/seed0"))
    failure = read_failure(folder)
    assert failure == Failure(1, "the loss of step 1 is nan at learning rate 0.1", "")
    assert not (folder / "result.json").exists() and (folder / "config.json").exists()
    with monkeypatch.context() as patch:
        patch.setattr(
            Steps, "take", lambda self, p, loss: take(self, p, loss * (float("inf") if self.position.step > 1 else 1))
        )
        with pytest.raises(RunFailure):
            train(config)
    failure = read_failure(folder)
    assert failure is not None and (failure.step, failure.checkpoint) == (3, "checkpoints/step-00000002")
    assert (folder / failure.checkpoint / "manifest.json").exists()
    train(config)
    assert read_failure(folder) is None and (folder / "result.json").exists()


def test_overwrite_removes_a_failed_run(tmp_path):
    config = tiny_config(tmp_path)
    train(config)
    folder = next((tmp_path / "runs").glob("*/*/*/seed0"))
    write_failure(folder, Failure(3, "the loss of step 3 is inf at learning rate 1", ""))
    train(tiny_config(tmp_path, overwrite=True))
    assert not (folder / FAILURE_FILE).exists()


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"format": "golu-failure/2"}', '{"format": "golu-failure/1", "step": "3"}']
)
def test_a_malformed_failure_is_refused(tmp_path, content):
    (tmp_path / FAILURE_FILE).write_text(content)
    with pytest.raises(RequestError, match=r"failure\.json"):
        read_failure(tmp_path)
