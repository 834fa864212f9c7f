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
    "prepare-pairs": [["pairs", "--pair", "en-de", "--data-dir", "prepared", "--vocabulary", "64"]],
    "translate": [[f"no {name} run"] for name in NAMES],
}
"""Of each command, what its arguments are here."""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Texts and pairs with these names, and a run that was trained on the texts."""
    root = tmp_path_factory.mktemp("names")
    (root / "texts").mkdir()
    (root / "pairs").mkdir()
    for name in NAMES:
        (root / "texts" / f"{name}.txt").write_text("Once upon a time there was a number.\n" * 20)
        (root / "pairs" / f"{name}.csv").write_bytes(b"")
    (root / "texts" / "photo.heic").write_bytes(b"")
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven"]
    sentences = [f"{a} {b} {c}" for a in words for b in words for c in words]
    (root / "pairs" / "train.en").write_text("".join(f"{sentence}\n" for sentence in sentences))
    (root / "pairs" / "train.de").write_text("".join(f"{sentence.upper()}\n" for sentence in sentences))
    done = printed_by(COMMAND_LINE.main, "train", *TRAIN, cwd=root)
    assert_harmless(done.out, done.err)
    assert done.status == 0, done.err
    assert "1 file that is not taken for text (1 .heic), such as photo.heic" in done.err
    return root


@pytest.mark.parametrize("encoding", ["utf-8", pytest.param("ascii", marks=pytest.mark.slow)])
@pytest.mark.parametrize("command", sorted({"recipes", "train", "evaluate", *COMMAND_LINE.task.commands}))
def test_every_command_survives_every_name(command, encoding, place):
    for number, words in enumerate(COMMANDS[command]):
        words = [f"{encoding}-prepared" if word == "prepared" else word for word in words]
        done = printed_by(COMMAND_LINE.main, command, *words, cwd=place, encoding=encoding)
        refused = (command, number) in (("train", 1), ("export", 0)) or command == "translate"
        if command == "generate":  # a result, which a file holds as it is
            assert done.status == (2 if "\udce9" in words[-1] else 0), done.err
            if encoding == "utf-8" and done.status == 0:
                assert done.out.startswith(words[-1])
            assert_harmless(done.err)
        else:
            assert done.status == (2 if refused else 0), done.err
            assert_harmless(done.out, done.err)
        if command == "prepare-pairs":
            assert f"{len(NAMES)} files that are not used ({len(NAMES)} .csv)" in done.out
