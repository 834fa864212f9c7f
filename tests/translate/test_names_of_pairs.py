"""Pairs in files with names that somebody made up, through every command of golu-translate."""

from __future__ import annotations

from pathlib import Path

import pytest

from golu_translate.cli import COMMAND_LINE
from hostile_names import HOSTILE_NAMES, assert_harmless, printed_by

NAMES = list(HOSTILE_NAMES.values())
COMMANDS = {
    "recipes": [[]],
    "train": [[f"no {NAMES[16]}"]],
    "evaluate": [[f"no {name} run"] for name in NAMES],
    "export": [["no\x1b[2J run", "--out", "exported"]],
    "prepare": [["pairs", "--pair", "en-de", "--data-dir", "prepared", "--vocabulary", "64"]],
    "translate": [[f"no {name} run"] for name in NAMES],
}
"""Of each command, what its arguments are here."""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder of pairs, with other files of these names."""
    root = tmp_path_factory.mktemp("names")
    (root / "pairs").mkdir()
    for name in NAMES:
        (root / "pairs" / f"{name}.csv").write_bytes(b"")
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven"]
    sentences = [f"{a} {b} {c}" for a in words for b in words for c in words]
    (root / "pairs" / "train.en").write_text("".join(f"{sentence}\n" for sentence in sentences))
    (root / "pairs" / "train.de").write_text("".join(f"{sentence.upper()}\n" for sentence in sentences))
    return root


@pytest.mark.parametrize("encoding", ["utf-8", pytest.param("ascii", marks=pytest.mark.slow)])
@pytest.mark.parametrize("command", sorted({"recipes", "train", "evaluate", *COMMAND_LINE.task.commands}))
def test_every_command_survives_every_name(command, encoding, place):
    for words in COMMANDS[command]:
        words = [f"{encoding}-prepared" if word == "prepared" else word for word in words]
        done = printed_by(COMMAND_LINE.main, command, *words, cwd=place, encoding=encoding)
        assert done.status == (0 if command in ("recipes", "prepare") else 2), done.err
        assert_harmless(done.out, done.err)
        if command == "prepare":
            assert f"{len(NAMES)} files that are not used ({len(NAMES)} .csv)" in done.out
