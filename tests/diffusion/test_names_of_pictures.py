"""Pictures with names that somebody made up, through every command of golu-diffusion."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from diffusion_program import TINY
from golu_diffusion.cli import COMMAND_LINE
from hostile_names import HOSTILE_NAMES, assert_harmless, printed_by

NAMES = list(HOSTILE_NAMES.values())
RUN = "runs/diffusion/pictures/golu/seed0"
COMMANDS = {
    "recipes": [[]],
    "train": [["pictures", "--data.images", "pictures", *TINY, "--epochs", "1"], [f"no {NAMES[16]}"]],
    "evaluate": [[RUN]],
    "export": [["no\x1b[2J run", "--out", "exported"]],
    "sample": [
        [RUN, "--count", "2", "--sampler", "ddim", "--steps", "2", "--grid", "grid.png", "--out", f"drawn {NAMES[16]}"]
    ],
    "interpolate": [
        [RUN, *(f"pictures/{name}.png" for name in NAMES[-3:-1]), "--timestep", "10", "--grid", "grid between.png"]
    ],
}
"""Of each command, what its arguments are here."""


@pytest.fixture(scope="module")
def place(few_images, tmp_path_factory) -> Path:
    """Pictures with these names, and a run that was trained on them."""
    root = tmp_path_factory.mktemp("names")
    (root / "pictures").mkdir()
    for name, path in zip(NAMES, sorted(few_images.iterdir()), strict=False):
        shutil.copy(path, root / "pictures" / f"{name}.png")
    (root / "pictures" / "photo.heic").write_bytes(b"")
    done = printed_by(COMMAND_LINE.main, "train", *COMMANDS["train"][0], cwd=root)
    assert_harmless(done.out, done.err)
    assert done.status == 0, done.err
    assert "has 1 file that is not read as images (1 .heic), such as photo.heic" in done.err
    return root


@pytest.mark.parametrize("encoding", ["utf-8", pytest.param("ascii", marks=pytest.mark.slow)])
@pytest.mark.parametrize("command", sorted({"recipes", "train", "evaluate", *COMMAND_LINE.task.commands}))
def test_every_command_survives_every_name(command, encoding, place):
    for number, words in enumerate(COMMANDS[command]):
        words = [f"{encoding}-{word}" if word.startswith(("grid", "drawn")) else word for word in words]
        done = printed_by(COMMAND_LINE.main, command, *words, cwd=place, encoding=encoding)
        refused = (command, number) in (("train", 1), ("export", 0))
        assert done.status == (2 if refused else 0), done.err
        assert_harmless(done.out, done.err)
