"""Texts in files with names that somebody made up, through every command of golu-lm."""

from __future__ import annotations

from pathlib import Path

import pytest

from golu_lm.cli import COMMAND_LINE
from hostile_names import HOSTILE_NAMES, assert_harmless, printed_by
from lm_program import TINY

NAMES = list(HOSTILE_NAMES.values())
RUN = "runs/lm/babygpt-text/golu/seed0"
TRAIN = ["babygpt-text", "--data.text", "texts", "--data.tokenizer", "bytes", *TINY]
COMMANDS = {
    "recipes": [[]],
    "train": [TRAIN, [f"no {NAMES[16]}"]],
    "evaluate": [[RUN]],
    "export": [["no\x1b[2J run", "--out", "exported"]],
    "generate": [[RUN, "--tokens", "3", "--prompt", name] for name in NAMES],
    "prepare": [["texts", "--tokenizer", "bytes", "--data-dir", "prepared"]],
}
"""Of each command, what its arguments are here."""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Texts with these names, and a run that was trained on them."""
    root = tmp_path_factory.mktemp("names")
    (root / "texts").mkdir()
    for name in NAMES:
        (root / "texts" / f"{name}.txt").write_text("Once upon a time there was a number.\n" * 20)
    (root / "texts" / "photo.heic").write_bytes(b"")
    done = printed_by(COMMAND_LINE.main, "train", *TRAIN, cwd=root)
    assert_harmless(done.out, done.err)
    assert done.status == 0, done.err
    assert "1 file that is not read as text (1 .heic), such as photo.heic" in done.err
    return root


@pytest.mark.parametrize("encoding", ["utf-8", pytest.param("ascii", marks=pytest.mark.slow)])
@pytest.mark.parametrize("command", sorted({"recipes", "train", "evaluate", *COMMAND_LINE.task.commands}))
def test_every_command_survives_every_name(command, encoding, place):
    for number, words in enumerate(COMMANDS[command]):
        words = [f"{encoding}-prepared" if word == "prepared" else word for word in words]
        done = printed_by(COMMAND_LINE.main, command, *words, cwd=place, encoding=encoding)
        refused = (command, number) in (("train", 1), ("export", 0))
        if command == "generate":  # a result, which a file holds as it is
            assert done.status == (2 if "\udce9" in words[-1] else 0), done.err
            if encoding == "utf-8" and done.status == 0:
                assert done.out.startswith(words[-1])
            assert_harmless(done.err)
        else:
            assert done.status == (2 if refused else 0), done.err
            assert_harmless(done.out, done.err)
