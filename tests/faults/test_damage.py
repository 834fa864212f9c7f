"""Any file of a run or of its data, damaged between two commands: the same bytes come out, or one message does.

Each file is damaged in one way here, and those that every task's run has in golu-lm's, which is the quickest.
GOLU_ALL_FAULTS=1 damages every file of every task in all ways.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from faults import ALL, TRAIN, Ended, files, run_folder, same_as
from golu_core.training.runs.run_files import PENDING_FILE


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    if content:
        content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


A_FOLDER = "a folder in its place"
DAMAGES: dict[str, Callable[[Path], None]] = {
    "cut in half": _cut,
    "emptied": _empty,
    "one bit flipped": _flip_a_bit,
    "removed": Path.unlink,
    A_FOLDER: _become_a_folder,
}
CASES = [
    pytest.param(task, damage, marks=[] if (task, damage) == ("lm", "one bit flipped") else [pytest.mark.slow])
    for task in TRAIN
    for damage in DAMAGES
]


def chosen(names: Sequence[str], damage: str) -> list[str]:
    """The files that a damage is tried on: all of them, or each damage its share and at least one."""
    place = list(DAMAGES).index(damage)
    return list(names) if ALL else list(names[place :: len(DAMAGES)]) or [names[place % len(names)]]


def own_files(task: str, top: Path, others: Path) -> list[str]:
    """The files of a task's run, at least one; the others that golu-lm's has as well are left to it."""
    found = only_files(top)
    if ALL or task == "lm":
        return found
    common = {_kind(name) for name in only_files(others)}
    return [name for name in found if _kind(name) not in common] or found[:1]


def _kind(name: str) -> str:
    """A file's path within its run's folder, without the numbers of steps."""
    return re.sub(r"\d+", "N", name.partition("/seed0")[2])


def only_files(top: Path) -> list[str]:
    return [name for name in files(top) if (top / name).is_file()]


def content(top: Path) -> dict[str, bytes]:
    """All files, but for the lock of the run, which every start takes, and what a kill left, which it sweeps."""
    found = {str(path.relative_to(top)): path for path in top.rglob("*")}
    kept = {name: path for name, path in found.items() if ".lock" not in name and ".partial" not in name}
    return {name: b"" if path.is_dir() else path.read_bytes() for name, path in kept.items()}


def problem_of(
    ended: Ended, cwd: Path, before: dict[str, bytes] | None, whole: Path, task: str, may_differ: str = ""
) -> str | None:
    """What is wrong with how a command ended: neither as on an undamaged run, nor with one message and no change.

    Args:
        ended: the command.
        cwd: where it ran.
        before: the content of that, or None where a refusal may come after some writing.
        whole: where the undisturbed run is.
        task: of both.
        may_differ: a file or folder that may be missing or there besides.
    """
    try:
        if ended.returncode == 0:
            if may_differ.endswith((".png", ".txt")) and "the same command tries again" in ended.stderr:
                (cwd / run_folder(task) / PENDING_FILE).unlink()  # which reminds the next command
            same_as(cwd, whole, task, may_differ)
        else:
            assert ended.returncode in (1, 2), f"status {ended.returncode}"
            assert ended.message
            assert before in (None, content(cwd)), "something was written"
    except AssertionError as error:
        return str(error).strip().partition("\n")[0] + f" ({ended.returncode}: {ended.stderr[-300:]})"
    return None


def may_differ(name: str, finished: bool) -> str:
    """What a user may do without: pictures and texts that were drawn on the way, checkpoints of a finished run.

    An old checkpoint without a manifest is not known to be ours, and stays.
    """
    if name.endswith((".png", ".txt")) or (finished and "/checkpoints/" in name):
        return name
    return name.removesuffix("/manifest.json") if name.endswith("/manifest.json") else ""


@pytest.mark.parametrize(("task", "damage"), CASES)
def test_a_damaged_file_of_a_stopped_run(task, damage, programs, data, whole, stopped, tmp_path):
    problems = {}
    for name in chosen(own_files(task, stopped(task), stopped("lm")), damage):
        cwd = tmp_path / "copy"
        shutil.copytree(stopped(task), cwd)
        DAMAGES[damage](cwd / name)
        before = None if damage == A_FOLDER else content(cwd)
        ended = programs.run(task, *TRAIN[task], "--data-dir", str(data), cwd=cwd)
        problems[name] = problem_of(ended, cwd, before, whole(task)[0], task, may_differ(name, False))
        shutil.rmtree(cwd)
    assert not any(problems.values()), {name: problem for name, problem in problems.items() if problem}


@pytest.mark.parametrize(("task", "damage"), CASES)
def test_a_damaged_file_of_a_finished_run(task, damage, programs, data, whole, tmp_path):
    undisturbed, _ = whole(task)
    evaluate = ["evaluate", str(run_folder(task)), "--data-dir", str(data)]
    expected = programs.run(task, *evaluate, cwd=undisturbed)
    assert expected.returncode == 0, expected.stderr
    problems = {}
    for name in chosen(own_files(task, undisturbed, whole("lm")[0]), damage):
        cwd = tmp_path / "copy"
        shutil.copytree(undisturbed, cwd)
        DAMAGES[damage](cwd / name)
        before = None if damage == A_FOLDER else content(cwd)
        evaluated = programs.run(task, *evaluate, cwd=cwd)
        if evaluated.returncode == 0:
            problems[f"evaluate {name}"] = "" if evaluated.stdout == expected.stdout else evaluated.stdout
        else:
            problems[f"evaluate {name}"] = problem_of(evaluated, cwd, before, undisturbed, task)
        ended = programs.run(task, *TRAIN[task], "--data-dir", str(data), cwd=cwd)
        problems[name] = problem_of(ended, cwd, before, undisturbed, task, may_differ(name, True))
        shutil.rmtree(cwd)
    assert not any(problems.values()), {name: problem for name, problem in problems.items() if problem}


@pytest.mark.parametrize(("task", "damage"), CASES)
def test_a_damaged_file_of_the_data(task, damage, programs, data, whole, stopped, tmp_path):
    """Between a stop and the continuation; the run has seen other data then."""
    problems = {}
    folders = {"lm": "pydocs-bytes", "translation": "numbers-en-de", "detect": "digit-scenes"}
    name = folders.get(task, "digits")
    lying = only_files(data / name)
    for file in chosen(list(dict.fromkeys([*lying[:2], lying[len(lying) // 2], *lying[-2:]])), damage):
        cwd, copy = tmp_path / "copy", tmp_path / "data"
        shutil.copytree(stopped(task), cwd)
        shutil.copytree(data / name, copy / name)
        DAMAGES[damage](copy / name / file)
        before = None if damage == A_FOLDER else content(cwd)
        ended = programs.run(task, *TRAIN[task], "--data-dir", str(copy), cwd=cwd)
        if (task, file, damage) == ("lm", "meta.json", "removed"):  # a folder as nanoGPT writes it
            told = "bits_per_byte is not computed" in ended.stdout + ended.stderr
            problems[file] = None if ended.returncode == 0 and told else ended.stderr
        else:
            problems[file] = problem_of(ended, cwd, before, whole(task)[0], task)
        shutil.rmtree(cwd)
        shutil.rmtree(copy)
    assert not any(problems.values()), {name: problem for name, problem in problems.items() if problem}
