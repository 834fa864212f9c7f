"""Folders that cannot be written or read, and small disks that fill up: one message, and then the same bytes."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults import SHARED, TRAIN, files, run_folder, same_as
from test_damage import content

TASKS = [pytest.param(task, marks=[] if task == "lm" else [pytest.mark.slow]) for task in TRAIN]


@contextlib.contextmanager
def mode(path: Path, bits: int) -> Iterator[None]:
    """Changes the permissions of a folder for a while."""
    before = path.stat().st_mode
    path.chmod(bits)
    try:
        yield
    finally:
        path.chmod(before)


@contextlib.contextmanager
def small_disk(place: Path, options: str) -> Iterator[None]:
    """A file system in memory, of a size; skips the test where none can be mounted."""
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


READ_ONLY = 0o555
CLOSED = 0o000


PLACES = ("output folder", "run folder", "checkpoints", "data folder")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "place"),
    [(task, place) for task in TRAIN for place in PLACES if task in SHARED or place == "data folder"],
)
@pytest.mark.parametrize("bits", [READ_ONLY, CLOSED], ids=["read-only", "closed"])
def test_a_folder_without_rights(task, bits, place, programs, data, whole, tmp_path):
    """Where a run begins or would continue, and where it would put its data."""
    undisturbed, _ = whole(task)
    runs = tmp_path / "runs"
    arguments = [*TRAIN[task], "--data-dir", str(data)]
    if place == "output folder":
        runs.mkdir()
    elif place == "data folder":
        (tmp_path / "data").mkdir()
        arguments = [*TRAIN[task], "--data-dir", "data"]
    else:
        shutil.copytree(undisturbed / "runs", runs)
        (tmp_path / run_folder(task) / "result.json").unlink()
        shutil.rmtree(sorted((tmp_path / run_folder(task) / "checkpoints").iterdir())[-1])
    folder = {
        "output folder": runs,
        "data folder": tmp_path / "data",
        "run folder": tmp_path / run_folder(task),
        "checkpoints": tmp_path / run_folder(task) / "checkpoints",
    }[place]
    before = content(tmp_path)
    with mode(folder, bits):
        ended = programs.run(task, *arguments, cwd=tmp_path, like_anybody=True)
    assert ended.returncode in (1, 2), ended.stderr
    assert folder.name in ended.message
    assert content(tmp_path).keys() - before.keys() == set()
    again = programs.run(task, *TRAIN[task], "--data-dir", str(data), cwd=tmp_path, like_anybody=True)
    assert again.returncode == 0, again.stderr
    if place == "data folder":
        (tmp_path / "data").rmdir()
    same_as(tmp_path, undisturbed, task)


@pytest.mark.parametrize("task", TASKS)
def test_a_folder_of_somebody_else(task, programs, data, whole, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root to make a folder somebody else's")
    shutil.copytree(whole(task)[0] / "runs", tmp_path / "runs")
    folder = tmp_path / run_folder(task)
    (folder / "result.json").unlink()
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 65534, 65534)
        path.chmod(0o700 if path.is_dir() else 0o600)
    before = content(tmp_path)
    ended = programs.run(task, *TRAIN[task], "--data-dir", str(data), cwd=tmp_path, like_anybody=True)
    assert ended.returncode in (1, 2), ended.stderr
    assert folder.name in ended.message
    assert content(tmp_path) == before


@pytest.mark.parametrize("task", TASKS)
def test_finished_runs_and_data_need_not_be_writable(task, programs, data, whole, tmp_path):
    undisturbed, _ = whole(task)
    evaluate = ["evaluate", str(run_folder(task)), "--data-dir", str(data)]
    expected = programs.run(task, *evaluate, cwd=undisturbed)
    shutil.copytree(undisturbed / "runs", tmp_path / "runs")
    kept = [tmp_path / run_folder(task), data, *(data / name for name in os.listdir(data))]
    with contextlib.ExitStack() as stack:
        for folder in kept:
            stack.enter_context(mode(folder, READ_ONLY))
        evaluated = programs.run(task, *evaluate, cwd=tmp_path, like_anybody=True)
        elsewhere = ["--data-dir", str(data), "--output-dir", "new"]
        trained = programs.run(task, *TRAIN[task], *elsewhere, cwd=tmp_path, like_anybody=True)
    assert evaluated.returncode == 0 and evaluated.stdout == expected.stdout, evaluated.stderr
    assert trained.returncode == 0, trained.stderr
    shutil.rmtree(tmp_path / "runs")
    (tmp_path / "new").rename(tmp_path / "runs")
    same_as(tmp_path, undisturbed, task)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "short_of", "share"),
    [
        (task, short_of, share)
        for task in TRAIN
        for short_of in ("space", "inodes")
        for share in (0.02, 0.3, 0.9)
        if task in SHARED or (short_of, share) == ("space", 0.3)
    ],
)
def test_a_small_disk(task, share, short_of, programs, data, whole, tmp_path):
    undisturbed, _ = whole(task)
    needed = sum(path.stat().st_size for path in (undisturbed / "runs").rglob("*") if path.is_file())
    pages = int(share * needed / 4096) + 1
    limits = f"size={4 * pages}k" if short_of == "space" else f"nr_inodes={int(share * len(files(undisturbed))) + 2}"
    arguments = [*TRAIN[task], "--data-dir", str(data)]
    cwd = tmp_path / "disk"
    with small_disk(cwd, limits):
        ended = programs.run(task, *arguments, cwd=cwd)
        assert ended.returncode == 1, ended.stderr
        assert "No space left on device" in ended.message or "free on its disk" in ended.message
        subprocess.run(["mount", "-o", "remount,size=1g,nr_inodes=100000", cwd], check=True)
        again = programs.run(task, *arguments, cwd=cwd)
        assert again.returncode == 0, again.stderr
        same_as(cwd, undisturbed, task)
