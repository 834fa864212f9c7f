"""Every file that a command reads, in every state that it may be in: the same data come out, or one message does.

The files are those of `READ_SETS`, found by walking through what each example writes.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from golu_core.training.messages.errors import RequestError, RunFailure
from golu_core.training.runs.provenance import environment
from read_sets import READ_SETS, ReadSet

_SECONDS = 10  # a hang lasts forever, and a busy machine is slow
_LONGEST_MESSAGE = 1500
_LONG_LINE = 10_000_000


def as_text(content: bytes) -> str:
    """The text of a file; bytes that are none stand for themselves."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def recoded(encoding: str) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(as_text(path.read_bytes()).encode(encoding, "replace"))


def latin_1(path: Path) -> None:
    path.write_bytes(as_text(path.read_bytes()).encode("latin-1", "replace") + b"\xe9\n")


def null(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + b"\0" + content[len(content) // 2 :])


def long_line(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\n" + b"x " * (_LONG_LINE // 2) + b"\n")


def instead(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.unlink()
        make(path)

    return change


def a_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the name of a socket has at most 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


READABLE = {"UTF-16": recoded("utf-16"), "UTF-16, big": lambda path: path.write_bytes(
    b"\xfe\xff" + as_text(path.read_bytes()).encode("utf-16-be")), "BOM": recoded("utf-8-sig")}  # fmt: skip
NO_TEXT = {"Latin-1": latin_1, "NUL": null}
NO_FILE = {
    "folder": instead(Path.mkdir),
    "FIFO": instead(os.mkfifo),
    "socket": instead(a_socket),
    "device": instead(lambda path: path.symlink_to("/dev/null")),
    "dangling link": instead(lambda path: path.symlink_to("nowhere")),
    "link to itself": instead(lambda path: path.symlink_to(path.name)),
}
STATES: dict[str, Callable[[Path], object]] = {
    **READABLE,
    **NO_TEXT,
    **NO_FILE,
    "empty": lambda path: path.write_bytes(b""),
    "10 MB line": long_line,
}


class Hang(BaseException):
    """Nothing in the program catches it."""


@contextmanager
def bounded() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, _SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def outcome(read_set: ReadSet, folder: Path) -> tuple[Any, str | None]:
    """What was read, and the refusal if there was one; everything else is a fault."""
    try:
        with bounded():
            return read_set.read(folder), None
    except (RequestError, RunFailure, OSError) as error:  # which every command turns into one message
        return None, str(error)
    except Hang:
        return None, "HANG"
    except Exception as error:
        return None, f"TRACEBACK {type(error).__name__}: {error}"


def fault_of(read_set: ReadSet, path: Path, folder: Path, state: str, expected: Any) -> str | None:
    """What is wrong with how a state of a file is dealt with."""
    found, refusal = outcome(read_set, folder)
    is_text = not read_set.binary and path.suffix not in (".png", ".jpg")
    may_change = any(part in str(path.relative_to(folder)) for part in read_set.may_change)
    if refusal is not None:
        if refusal == "HANG" or refusal.startswith("TRACEBACK"):
            return refusal[:300]
        if is_text and state in READABLE:
            return f"refused: {refusal[:300]}"
        return f"a message of {len(refusal):,} characters" if len(refusal) > _LONGEST_MESSAGE else None
    if is_text and state in NO_TEXT:
        return "read as if it were text"
    if found == expected or (may_change and state in ("empty", "10 MB line")):
        return None
    if may_change and read_set.binary and state not in NO_FILE:
        return None  # a format without checksums
    return "other data, without a word"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The versions of the machine are asked for once, not by each of a thousand runs."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    environment("cpu", "golu-core")


def checked(name: str, tmp_path: Path) -> list[str]:
    read_set = READ_SETS[name]
    whole = tmp_path / "whole"
    read_set.make(whole)
    pristine, folder = tmp_path / "pristine", tmp_path / "set"
    shutil.copytree(whole, pristine)
    shutil.copytree(pristine, folder)
    expected, refusal = outcome(read_set, folder)
    assert refusal is None, refusal
    files = sorted(path.relative_to(pristine) for path in pristine.rglob("*") if path.is_file())
    assert files
    faults = []
    for file in files:
        for state in read_set.states or STATES:
            shutil.rmtree(folder)
            shutil.copytree(pristine, folder)
            STATES[state](folder / file)
            fault = fault_of(read_set, folder / file, folder, state, expected)
            if fault is not None:
                faults.append(f"{file}, {state}: {fault}")
    return faults


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if found.slow else []) for name, found in READ_SETS.items()]
)
def test_a_file_is_read_right_or_refused(name, tmp_path):
    faults = checked(name, tmp_path)
    assert not faults, "\n".join(faults)
