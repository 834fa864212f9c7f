"""What commands write appears whole or not at all, beside what is there or inside an empty folder, after any kill."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from golu_core.studies.reporting.report import write_report
from golu_core.training.messages.errors import RequestError
from golu_core.training.storage.output_folders import check_output_folder, output_folder
from golu_core.training.storage.ownership import begin_partial, partial_of, write_json

FILES = {"a.txt": b"a", "figures/b.png": b"b", "z.md": b"z"}
OPERATIONS = ("mkdir", "unlink", "rmdir", "rename", "replace", "write_bytes", "write_text", "chmod")


def fill(folder: Path) -> None:
    with output_folder(folder, "--out") as place:
        for name, content in FILES.items():
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).write_bytes(content)


def report(folder: Path) -> None:
    write_report(folder, FILES)


def content(top: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(top)): None if p.is_dir() else p.read_bytes() for p in top.rglob("*")}


def killed_at(number: int, run: Callable[[], None]) -> bool:
    """Runs something in a fork that ends at its N-th change of a file, after half of it; whether it came that far."""
    child = os.fork()
    if child == 0:
        count = 0

        def struck(function):
            def call(path, *arguments, **options):
                nonlocal count
                count += 1
                if count == number:
                    if function.__name__.startswith("write"):
                        function(path, arguments[0][: len(arguments[0]) // 2], **options)
                    os._exit(9)
                return function(path, *arguments, **options)

            return call

        for name in OPERATIONS:
            setattr(Path, name, struck(getattr(Path, name)))
        run()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
@pytest.mark.parametrize("write", [fill, report])
@pytest.mark.parametrize("there", [False, True], ids=["new", "empty"])
def test_the_same_command_succeeds_after_a_kill_at_any_change(tmp_path, write, there):
    if there:
        (tmp_path / "whole").mkdir()
    write(tmp_path / "whole")
    for number in range(1, 200):
        top = tmp_path / str(number)
        (top / "out" if there else top).mkdir(parents=True)
        killed = killed_at(number, lambda top=top: write(top / "out"))
        if killed and not there and (top / "out").exists():
            found = content(top / "out").keys() - {"partial.json"}
            assert found == content(tmp_path / "whole").keys(), "half of it has the name of the whole"
        try:
            write(top / "out")
        except RequestError:  # as after an undisturbed command: all of it is there
            assert write is fill and (top / "out" / "z.md").exists()
        assert content(top) == {f"out/{k}": v for k, v in content(tmp_path / "whole").items()} | {"out": None}, number
        if not killed:
            assert number > 10
            return
    raise AssertionError("it never ended")


@pytest.mark.parametrize("there", [False, True], ids=["new", "empty"])
def test_an_error_leaves_nothing(tmp_path, there):
    folder = tmp_path / "parent" / "out"
    if there:
        folder.mkdir(parents=True)
    before = content(tmp_path)

    def half_way():
        with output_folder(folder, "--out") as place:
            (place / "half").write_text("")
            raise RequestError("no")

    with pytest.raises(RequestError):
        half_way()
    assert content(tmp_path) == before


def test_an_empty_folder_is_filled_and_not_replaced(tmp_path, monkeypatch):
    """It may be the current folder, or a mounted volume."""
    before = tmp_path.stat().st_ino
    monkeypatch.chdir(tmp_path)
    fill(Path("."))
    assert content(tmp_path) == {**FILES, "figures": None} and tmp_path.stat().st_ino == before


@pytest.mark.parametrize("place", ["a file", "a link", "a full folder", "a partial of somebody else"])
def test_what_is_not_ours_stays(tmp_path, place):
    folder = tmp_path / "out"
    if place == "a file":
        folder.write_text("mine")
    elif place == "a link":
        (tmp_path / "there").mkdir()
        folder.symlink_to(tmp_path / "there")
    else:
        inside = folder / ".output.partial" if place == "a partial of somebody else" else folder
        inside.mkdir(parents=True)
        (inside / "wedding.jpg").write_bytes(b"the only copy")
    before = content(tmp_path)
    for attempt in (lambda: check_output_folder(folder, "--out"), lambda: fill(folder), lambda: report(folder)):
        with pytest.raises(RequestError):
            attempt()
    assert content(tmp_path) == before


def test_a_file_of_the_users_beside_a_killed_write_stays(tmp_path):
    """Named like one of ours that was not moved yet."""
    partial = begin_partial(tmp_path / "output")
    (partial / "README.md").write_text("ours")
    write_json(partial / "partial.json", {"format": "golu-partial/1", "names": ["README.md"]})
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(RequestError, match="not an empty folder"):
        fill(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine" and partial_of(tmp_path / "output").exists()


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_that_refuses_chmod_is_written_to(tmp_path, number, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(number, os.strerror(number))

    for owner, name in ((os, "chmod"), (os, "fchmod"), (Path, "chmod")):
        monkeypatch.setattr(owner, name, refuse)
    fill(tmp_path / "out")
    write_json(tmp_path / "file.json", {})
    assert content(tmp_path / "out") == {**FILES, "figures": None}
