"""Ordinary surroundings are survived: file systems without permissions or locks, and a tracker after a kill."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from golu_core.training.loop.log import RunLog
from golu_core.training.messages.errors import RequestError
from golu_core.training.storage.locks import claim, is_claimed, only_writer
from tiny_task import tiny_config, train


def refusing(number: int):
    def refuse(*arguments, **options):
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_a_run_is_trained_where_chmod_is_refused(tmp_path, number, monkeypatch):
    """Object stores and Windows shares that are mounted."""
    for owner, name in ((os, "chmod"), (os, "fchmod"), (Path, "chmod")):
        monkeypatch.setattr(owner, name, refusing(number))
    train(tiny_config(tmp_path))
    assert next(tmp_path.rglob("result.json"))


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.ENOLCK])
def test_a_file_system_without_locks_is_named(tmp_path, number, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", refusing(number))
    folder = tmp_path / "runs" / "seed0"
    attempts = (
        lambda: claim(folder),
        lambda: only_writer(folder).__enter__(),
        lambda: train(tiny_config(tmp_path)),
    )
    for attempt in attempts:
        with pytest.raises(RequestError, match=r"has no locks .*name a folder on another one"):
            attempt()
        assert list(tmp_path.iterdir()) == []
    assert not is_claimed(folder)


@pytest.mark.filterwarnings("ignore:flock not supported")
def test_flock_that_is_missing_is_replaced_or_named(tmp_path, monkeypatch):
    """The library of locks has a substitute where the call itself is missing, in its newer versions."""
    monkeypatch.setattr(fcntl, "flock", refusing(errno.ENOSYS))
    refusal = ""
    try:
        claim(tmp_path / "seed0", 1.0).release()
    except RequestError as error:
        refusal = str(error)
    assert not refusal or "has no locks" in refusal
    assert list(tmp_path.iterdir()) == []


def events(folder: Path) -> list[tuple[str, int, float]]:
    """All scalars of all event files of a run, as they are read: name, step and value, times aside."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = []
    for path in sorted(folder.rglob("*events.out.tfevents*")):
        accumulator = EventAccumulator(str(path), size_guidance={"scalars": 0, "tensors": 0})
        accumulator.Reload()
        for tag in accumulator.Tags()["scalars"]:
            found += [(tag, event.step, event.value) for event in accumulator.Scalars(tag)]
    return sorted(found)


@pytest.mark.parametrize("killed_at", [3, 4, 7])
def test_tensorboard_shows_each_step_once(tmp_path, killed_at, monkeypatch):
    """Also those that a kill cut off after the last checkpoint, of which the event file knows already."""
    pytest.importorskip("tensorboard")
    fields = {"tracker": "tensorboard", "log_every": 1, "checkpoint_every": 2, "epochs": 4}
    whole, killed = (tiny_config(tmp_path / name, **fields) for name in ("whole", "killed"))
    train(whole)
    written = RunLog._write

    def struck(self, step, split, values):
        written(self, step, split, values)
        if step == killed_at:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunLog, "_write", struck)
        with pytest.raises(KeyboardInterrupt):
            train(killed)
    train(killed)
    expected = events(tmp_path / "whole")
    assert {tag for tag, _, _ in expected} >= {"train/loss", "test/loss"} and len(expected) >= 12
    assert events(tmp_path / "killed") == expected


def test_another_tracker_gets_what_it_missed(tmp_path):
    """A run that went on with TensorBoard shows all of its steps there."""
    pytest.importorskip("tensorboard")
    fields = {"log_every": 1, "epochs": 4}
    train(tiny_config(tmp_path / "whole", tracker="tensorboard", **fields))
    train(tiny_config(tmp_path / "late", **fields))
    folder = next((tmp_path / "late").rglob("result.json")).parent
    (folder / "result.json").unlink()
    train(tiny_config(tmp_path / "late", tracker="tensorboard", **fields))
    assert events(tmp_path / "late") == events(tmp_path / "whole")
