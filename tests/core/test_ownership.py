"""Nothing is removed or replaced that this program did not make, and one module alone removes and replaces."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

from golu_core.training.data.digits import write_digits
from golu_core.training.messages.errors import RequestError
from golu_core.training.storage.locks import only_writer
from golu_core.training.storage.ownership import (
    MADE_BY,
    begin_partial,
    discard,
    foreign_files,
    is_ours,
    new_folder,
    partial_of,
    publish,
    remove_file,
    sweep_partials,
    truncate_file,
    write_atomically,
    write_json,
    write_output,
)
from golu_core.training.storage.partial_marker import PARTIAL_MARKER
from golu_core.training.storage.scratch import scratch_folder

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [*ROOT.glob("packages/*/src/**/*.py"), *ROOT.glob("tools/**/*.py")]
OF_OS = {"remove", "unlink", "rename", "replace", "renames", "rmdir", "removedirs", "truncate", "ftruncate"}


def removals(source: str) -> list[str]:
    """Calls that remove or replace something on disk, as far as a reader can tell from their form.

    `replace` of a path takes one argument, that of a text two, that of a dataclass named ones after the first.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module in ("os", "shutil"):
            found += [f"{node.lineno}: {a.name}" for a in node.names if a.name in OF_OS | {"rmtree", "move"}]
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        name, owner = node.func.attr, node.func.value
        of = owner.id if isinstance(owner, ast.Name) else ""
        if of in ("os", "shutil"):
            forbidden = name in OF_OS | {"rmtree", "move"}
        elif name == "rename":
            forbidden = len(node.args) == 1 and not node.keywords
        elif name == "replace":
            forbidden = len(node.args) == 1 and not node.keywords and of != "dataclasses"
        else:
            forbidden = name in {"rmtree", "unlink", "rmdir", "truncate"}
        if forbidden:
            found.append(f"{node.lineno}: {of}.{name}")
    return found


def test_one_module_owns_all_removals():
    assert len(SOURCES) > 80
    found = {path.relative_to(ROOT).as_posix(): removals(path.read_text()) for path in SOURCES}
    assert [path for path, calls in found.items() if calls] == [
        "packages/golu-core/src/golu_core/training/storage/ownership.py"
    ], found


@pytest.mark.parametrize(
    "call",
    [
        "path.unlink()",
        "shutil.rmtree(x)",
        "os.replace(a, b)",
        "path.replace(other)",
        "from os import remove",
        "p.rmdir()",
    ],
)
def test_the_reader_finds_removals(call):
    assert removals(call)
    assert not removals("text.replace('a', 'b'); dataclasses.replace(config, seed=1); frame.rename(index=names)")


# ------------------------------------------------------------------------------------------------------------ folders


def users_folder(place: Path) -> Path:
    place.mkdir(parents=True)
    (place / "wedding.jpg").write_bytes(b"the only copy")
    return place


def content(top: Path) -> dict[str, bytes]:
    return {str(p.relative_to(top)): p.read_bytes() for p in top.rglob("*") if p.is_file()}


def test_a_folder_without_our_marker_stays(tmp_path):
    folder = users_folder(tmp_path / "photographs")
    for attempt in (discard, lambda f: publish(begin_partial(f), f)):
        with pytest.raises(RequestError):
            attempt(folder)
    assert content(folder) == {"wedding.jpg": b"the only copy"}


def test_nothing_is_removed_through_a_symbolic_link(tmp_path):
    with new_folder(tmp_path / "ours") as partial:
        write_json(partial / "run.json", {"format": "golu-run/2"})
    (tmp_path / "link").symlink_to(tmp_path / "ours")
    assert is_ours(tmp_path / "ours") and not is_ours(tmp_path / "link")
    with pytest.raises(RequestError, match="symbolic link"):
        discard(tmp_path / "link")
    assert (tmp_path / "link").exists()


def test_a_partial_folder_of_somebody_else_stays(tmp_path):
    users_folder(partial_of(tmp_path / "digits"))
    with pytest.raises(RequestError, match="this program did not make it"):
        begin_partial(tmp_path / "digits")
    sweep_partials(tmp_path)
    assert content(tmp_path) == {".digits.partial/wedding.jpg": b"the only copy"}


@pytest.mark.parametrize("stop_at", range(1, 12))
def test_a_killed_removal_is_finished_by_the_next(tmp_path, stop_at, monkeypatch):
    """Killed at any operation: what is left is either whole, or out of the way and ours."""
    folder = tmp_path / "seed0"
    folder.mkdir()
    write_json(folder / "run.json", {"format": "golu-run/2"})
    (folder / "samples").mkdir()
    for name in ("a", "b", "samples/c"):
        (folder / name).write_text(name)
    count = 0

    def counted(function):
        def call(*args, **kwargs):
            nonlocal count
            count += 1
            if count == stop_at:
                raise KeyboardInterrupt
            return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patch, pytest.MonkeyPatch.context():
        for name in ("unlink", "rmdir", "rename"):
            patch.setattr(Path, name, counted(getattr(Path, name)))
        try:
            discard(folder)
        except KeyboardInterrupt:
            assert not folder.exists() or len(content(folder)) == 4
    discard(folder)
    assert list(tmp_path.iterdir()) == []


def begun(tmp_path):
    begin_partial(tmp_path / "model")
    return partial_of(tmp_path / "model")


def scratch(tmp_path):
    made = scratch_folder()
    kept.append(made)  # or it would be closed at once
    return made.__enter__()


kept: list = []


@pytest.mark.parametrize("begin", [begun, scratch])
def test_a_marker_that_a_kill_or_a_full_disk_cut_short_is_ours(tmp_path, begin, monkeypatch):
    """Its file is made empty and filled after that; whatever is in it by then, the next writing begins again."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = begin(tmp_path)
    marker = (folder / PARTIAL_MARKER).read_bytes()
    for length in range(len(marker)):
        folder.mkdir(exist_ok=True)
        (folder / PARTIAL_MARKER).write_bytes(marker[:length])
        discard(folder)
        assert not folder.exists()
    kept.clear()


@pytest.mark.parametrize("users", [b"{}", b"thesis", b'{"format": "golu-partial/2'])
def test_a_file_of_the_markers_name_is_not_enough(tmp_path, users):
    folder = partial_of(tmp_path / "model")
    folder.mkdir()
    (folder / PARTIAL_MARKER).write_bytes(users)
    with pytest.raises(RequestError, match="this program did not make it"):
        begin_partial(tmp_path / "model")
    (folder / PARTIAL_MARKER).write_bytes(b"")
    (folder / "wedding.jpg").write_bytes(b"the only copy")
    with pytest.raises(RequestError, match="this program did not make it"):
        begin_partial(tmp_path / "model")
    assert content(folder) == {PARTIAL_MARKER: b"", "wedding.jpg": b"the only copy"}


def test_foreign_files_are_found_at_any_depth(tmp_path):
    for name in ("run.json", "samples/epoch-1.png", "samples/thesis.tex", "notes/a.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "link.json").symlink_to(tmp_path / "run.json")
    found = foreign_files(tmp_path, ("run.json", "samples/epoch-*.png", "link.json"))
    assert [str(p.relative_to(tmp_path)) for p in found] == ["link.json", "notes/a.txt", "samples/thesis.tex"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_new_folder_appears_whole_or_not_at_all(tmp_path, error):
    def half_way():
        with new_folder(tmp_path / "data") as partial:
            (partial / "half").write_text("")
            raise error

    with pytest.raises(error):
        half_way()
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------------------------------------- files


def test_a_file_that_a_person_named_is_replaced_only_if_it_is_ours(tmp_path):
    path = tmp_path / "samples.png"
    path.write_bytes(b"\x89PNG a photograph")
    with pytest.raises(RequestError, match="this program did not make it"):
        write_output(path, lambda p: p.write_bytes(b"new"))
    assert path.read_bytes() == b"\x89PNG a photograph"
    path.write_bytes(b"\x89PNG " + MADE_BY.encode())
    write_output(path, lambda p: p.write_bytes(b"new"))
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_files_are_removed_and_cut_in_our_folders_alone(tmp_path):
    folder = users_folder(tmp_path / "photographs")
    for attempt in (remove_file, lambda p: truncate_file(p, 1)):
        with pytest.raises(RequestError, match="not in a folder that this program made"):
            attempt(folder / "wedding.jpg")
    assert content(folder) == {"wedding.jpg": b"the only copy"}


def test_temporary_files_of_libraries_are_not_left(tmp_path):
    """safetensors writes `.tmpXXXXXX` beside the file that it is given; a kill leaves it."""

    def killed(path):
        path.with_name(".tmp123456").write_text("a whole model")
        os._exit(9)

    child = os.fork()
    if child == 0:
        write_atomically(tmp_path / "model.safetensors", killed)
    os.waitpid(child, 0)
    write_atomically(tmp_path / "model.safetensors", lambda p: p.write_text("weights"))
    assert content(tmp_path) == {"model.safetensors": b"weights"}


def test_scratch_folders_of_killed_processes_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    child = os.fork()
    if child == 0:
        scratch = scratch_folder()  # a name, or it would be closed at once
        scratch.__enter__()
        os._exit(9)
    os.waitpid(child, 0)
    (left,) = tmp_path.iterdir()
    with scratch_folder() as folder:
        assert not left.exists()
        assert folder.exists()
    assert list(tmp_path.iterdir()) == []


def test_locks_leave_nothing(tmp_path):
    with only_writer(tmp_path / "digits"):
        assert (tmp_path / ".digits.lock").exists()
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------------------------------- sample data


def test_digits_are_not_written_over_anything_else(tmp_path):
    folder = users_folder(tmp_path / "digits")
    with pytest.raises(RequestError, match="already holds files, and the digits would be written there"):
        write_digits(folder)
    assert content(folder) == {"wedding.jpg": b"the only copy"}
    (tmp_path / "empty").mkdir()
    write_digits(tmp_path / "empty")
    assert len(content(tmp_path / "empty")) == 1798
    assert sorted(p.name for p in tmp_path.iterdir()) == ["digits", "empty"]


# ---------------------------------------------------------------------------------------------------------- who writes

INSIDE_A_PARTIAL = "fills a folder or file that ownership.py renames"
WRITERS = {
    "golu_core/training/runs/checkpoint.py": INSIDE_A_PARTIAL,
    "golu_core/training/figures/class_details.py": INSIDE_A_PARTIAL,
    "golu_core/training/export/exporting.py": INSIDE_A_PARTIAL,
    "golu_core/training/export/model_card.py": INSIDE_A_PARTIAL,
    "golu_core/training/storage/ownership.py": "the atomic writer itself",
    "golu_core/training/storage/partial_marker.py": "the marker of partial folders",
    "golu_core/training/runs/run_files.py": "appends lines to metrics.jsonl, which a checkpoint restores",
    "golu_core/training/storage/sample_folder.py": INSIDE_A_PARTIAL,
    "golu_core/training/storage/scratch.py": "temporary folders that the next command removes after a kill",
    "golu_core/training/loop/state.py": INSIDE_A_PARTIAL,
    "golu_core/studies/sweeping/local.py": "logs, and notes of which the presence counts alone",
    "golu_core/studies/new_task.py": INSIDE_A_PARTIAL,
    "golu_core/studies/sweeping/cluster.py": "notes of which the presence counts alone",
    "golu_detect/predict.py": INSIDE_A_PARTIAL,
    "golu_detect/samples.py": INSIDE_A_PARTIAL,
    "golu_detect/video.py": INSIDE_A_PARTIAL,
    "golu_diffusion/diffusers_form.py": INSIDE_A_PARTIAL,
    "golu_lm/corpora.py": "inside a scratch folder",
    "golu_lm/prepare.py": "appends to a partial folder, which a journal restores",
    "golu_lm/tokenizers.py": "inside a scratch folder",
    "golu_translate/hugging_face.py": "inside a scratch folder",
    "golu_translate/pairs_folder.py": "appends to a partial folder, which a journal restores",
    "golu_translate/subwords.py": INSIDE_A_PARTIAL,
}
"""Files with calls that write, each with the reason why a kill in them leaves nothing half-written."""


def writes(source: str) -> list[str]:
    """Calls that write a file or make a temporary one, as far as a reader can tell from their form."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        modes = [n.value for n in [*node.args, *(k.value for k in node.keywords)] if isinstance(n, ast.Constant)]
        opens = name == "open" and any(
            isinstance(mode, str) and set(mode) & set("wax") and len(mode) < 4 for mode in modes
        )
        temporary = name in {"mkdtemp", "mkstemp", "TemporaryDirectory", "NamedTemporaryFile", "TemporaryFile"}
        owned = isinstance(node.func, ast.Name) and name in {"write_text", "write_json"}  # ownership's own
        if opens or temporary or (name in {"write_text", "write_bytes"} and not owned):
            found.append(f"{node.lineno}: {name}")
    return found


def test_all_output_goes_through_the_atomic_writer():
    """A new call that writes must stand in the table, with the reason why it may."""
    found = {
        path.as_posix().rpartition("/src/")[2]: calls
        for path in SOURCES
        if "/src/" in path.as_posix() and (calls := writes(path.read_text()))
    }
    assert found.keys() == WRITERS.keys(), found
