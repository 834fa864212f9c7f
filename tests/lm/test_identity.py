"""A language model's run is its tokens too, and a refused request leaves nothing."""

from __future__ import annotations

import json

import pytest

from command_line import runner_in_this_process
from golu_lm.cli import COMMAND_LINE
from lm_program import TINY


@pytest.fixture
def run_here(monkeypatch, capfd):
    monkeypatch.setattr(
        "matplotlib.figure.Figure.savefig", lambda figure, path, **options: path.write_bytes(b"picture")
    )
    return runner_in_this_process(COMMAND_LINE, monkeypatch, capfd)


@pytest.fixture
def prepared(tmp_path, run_here):
    rows = [{"text": f"Once there were {n} sheep, and then there were {n + 1}."} for n in range(300)]
    (tmp_path / "sheep.jsonl").write_text("\n".join(map(json.dumps, rows)))
    done = run_here("prepare", "sheep.jsonl", "--tokenizer", "bytes", "--data-dir", "d", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return tmp_path / "d" / "sheep"


COMMAND = ["train", "babygpt-text", "--data.name", "sheep", "--data-dir", "d", *TINY, "--max-steps", "4"]


@pytest.mark.parametrize("split", ["train", "test"])
def test_one_changed_token_is_another_run(split, prepared, tmp_path, run_here):
    assert run_here(*COMMAND, cwd=tmp_path).returncode == 0
    path = prepared / f"{split}.bin"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    folder = tmp_path / "runs/lm/babygpt-text/golu/seed0"
    done = run_here("evaluate", str(folder), cwd=tmp_path)
    assert done.returncode == 2 and "the data are not those of the run" in done.stderr
    (folder / "result.json").unlink()
    done = run_here(*COMMAND, cwd=tmp_path)
    assert done.returncode == 2 and "or other data" in done.stderr


def test_a_refused_text_leaves_nothing(tmp_path, run_here):
    (tmp_path / "short.txt").write_text("too short a text")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 au lait " * 40_000)
    before = sorted(p.name for p in tmp_path.rglob("*"))
    for name in ("short.txt", "latin.txt"):
        done = run_here("train", "babygpt-text", "--data.text", name, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert list((tmp_path / "data").rglob("*")) == []
    (tmp_path / "data").rmdir()
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


def test_prepare_overwrites_what_it_made_and_nothing_else(prepared, tmp_path, run_here):
    again = ["prepare", "sheep.jsonl", "--tokenizer", "bytes", "--data-dir", "d", "--overwrite"]
    (prepared / "thesis.tex").write_text("years of work")
    done = run_here(*again, cwd=tmp_path)
    assert done.returncode == 2 and "thesis.tex was not made by golu-lm prepare" in done.stderr
    (prepared / "thesis.tex").unlink()
    assert run_here(*again, cwd=tmp_path).returncode == 0
    (tmp_path / "d" / "mine").mkdir()
    (tmp_path / "d" / "mine" / "train.bin").write_bytes(b"mine")
    done = run_here(*again, "--name", "mine", cwd=tmp_path)
    assert done.returncode == 2 and "was not made by golu-lm prepare" in done.stderr
    assert (tmp_path / "d" / "mine" / "train.bin").read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["..", "a/b", "", ".x"])
def test_a_name_is_one_component(name, prepared, tmp_path, run_here):
    done = run_here("prepare", "sheep.jsonl", "--tokenizer", "bytes", "--name", name, cwd=tmp_path)
    assert done.returncode == 2 and "--name must be" in done.stderr


@pytest.mark.parametrize("name", ["model.safetensors", "result.json"])
@pytest.mark.parametrize("command", ["evaluate", "generate", "export"])
def test_damaged_files_are_not_used(name, command, prepared, tmp_path, run_here):
    assert run_here(*COMMAND, cwd=tmp_path).returncode == 0
    folder = tmp_path / "runs/lm/babygpt-text/golu/seed0"
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    done = run_here(command, str(folder), *(["out"] if command == "export" else []), cwd=tmp_path)
    assert done.returncode == 2 and name in done.stderr, done.stderr
