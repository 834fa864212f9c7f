"""Categories and images with names that somebody made up, through every command of golu-detect."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from detect_program import FAST
from golu_core.training.messages.text_sinks import printable
from golu_detect.cli import COMMAND_LINE
from hostile_names import HOSTILE_NAMES, assert_harmless, printed_by

NAMES = list(HOSTILE_NAMES.values())
EXACT = [name.encode("utf-8", "backslashreplace").decode() for name in NAMES]
FILES = [name.replace("\\", "") for name in NAMES]  # which separates folders in annotations from Windows
RUN = "runs/detect/retinanet-digits/golu/seed0"
OWN = [f"--data.{split}-{what}" for split in ("train", "test") for what in ("images", "annotations")]
WHERE = ["train2017", "annotations/instances_train2017.json", "val2017", "annotations/instances_val2017.json"]
DATA = [word for flag, place in zip(OWN, WHERE, strict=True) for word in (flag, f"scenes/{place}")]
pytestmark = pytest.mark.filterwarnings("ignore:Glyph:UserWarning", "ignore:constrained_layout:UserWarning")
COMMANDS = {
    "recipes": [[]],
    "train": [["retinanet-digits", *DATA, *FAST, "--epochs", "1"], [f"no {NAMES[16]}"]],
    "evaluate": [[RUN], [RUN, "--details", "details"]],
    "export": [["no\x1b[2J run", "--out", "exported"]],
    "sample-data": [["runs"]],
    "predict": [[RUN, "scenes/val2017", "--threshold", "0.0", "--out", "predicted"]],
}
"""Of each command, what its arguments are here."""


@pytest.fixture(scope="module")
def place(few_scenes, tmp_path_factory) -> Path:
    """Scenes whose categories and files have these names, and a run that was trained on them."""
    root = tmp_path_factory.mktemp("names")
    shutil.copytree(few_scenes / "digit-scenes", root / "scenes")
    for split in ("train", "val"):
        path = root / "scenes" / "annotations" / f"instances_{split}2017.json"
        content = json.loads(path.read_text())
        numbers = [category["id"] for category in content["categories"]]
        numbers += [max(numbers) + number for number in range(1, len(NAMES) - len(numbers) + 1)]
        content["categories"] = [{"id": id_, "name": name} for id_, name in zip(numbers, NAMES, strict=True)]
        folder = root / "scenes" / f"{split}2017"
        for number, image in enumerate(content["images"]):
            name = f"{FILES[-1 - number]}.png"
            (folder / image["file_name"]).rename(folder / name)
            image["file_name"] = name
        path.write_text(json.dumps(content))
    done = printed_by(COMMAND_LINE.main, "train", *COMMANDS["train"][0], cwd=root)
    assert_harmless(done.out, done.err)
    assert done.status == 0, done.err
    return root


@pytest.mark.parametrize("encoding", ["utf-8", pytest.param("ascii", marks=pytest.mark.slow)])
@pytest.mark.parametrize("command", sorted({"recipes", "train", "evaluate", *COMMAND_LINE.task.commands}))
def test_every_command_survives_every_name(command, encoding, place):
    for number, words in enumerate(COMMANDS[command]):
        if encoding == "ascii":
            words = [f"ascii-{word}" if word in ("details", "exported", "predicted") else word for word in words]
        done = printed_by(COMMAND_LINE.main, command, *words, cwd=place, encoding=encoding)
        refused = (command, number) in (("train", 1), ("export", 0), ("sample-data", 0))
        assert done.status == (2 if refused else 0), done.err
        assert_harmless(done.out, done.err)


def test_what_was_seen_is_by_name(place):
    words = ["predict", RUN, "scenes/val2017", "--threshold", "0.0", "--out", "seen"]
    done = printed_by(COMMAND_LINE.main, *words, cwd=place)
    assert done.status == 0, done.err
    shown = FILES[-7:]
    lines = done.out.splitlines()
    assert len(lines) == len(shown) + 1
    assert all(any(line.startswith(f"{printable(name)[:200]}") for line in lines) for name in shown)
    listed = json.loads((place / "seen" / "images.json").read_text())
    assert {category["name"] for category in listed["categories"]} == set(NAMES)
    assert {Path(image["file_name"]).name for image in listed["images"]} == {f"{name}.png" for name in shown}
    assert len(list((place / "seen").glob("*.png"))) == len(shown)
    assert len(list((place / "seen").glob("*.json"))) == len(shown) + 2


def test_details_are_by_name(place):
    if not (place / "details").exists():
        assert printed_by(COMMAND_LINE.main, "evaluate", RUN, "--details", "details", cwd=place).status == 0
    with (place / "details" / "classes.csv").open(encoding="utf-8", newline="") as file:
        assert {row["class"] for row in csv.DictReader(file)} <= set(EXACT) | {"background"}


def test_what_no_annotation_names_is_counted_and_named(place):
    (place / "scenes" / "val2017" / "photo.heic").write_bytes(b"")
    try:
        words = ["train", "retinanet-digits", *DATA, *FAST, "--dry-run", "--output-dir", "others"]
        done = printed_by(COMMAND_LINE.main, *words, cwd=place)
        assert "has 1 file that is not used (1 .heic), such as photo.heic" in done.err
        done = printed_by(COMMAND_LINE.main, "predict", RUN, "scenes/val2017", "--out", "mixed", cwd=place)
        assert "has 1 file that is not read as images (1 .heic), such as photo.heic" in done.err
    finally:
        (place / "scenes" / "val2017" / "photo.heic").unlink()


def test_paths_that_name_nothing_stop_nothing_else(place):
    paths = b"a\0b.mp4\r\nscenes/val2017/caf\xe9.png\r\n\xff.png\r\n/\r\n"
    words = ["predict", RUN, "-", "--out", "listed"]
    done = printed_by(COMMAND_LINE.main, *words, cwd=place, stdin=paths)
    assert done.status == 1
    assert_harmless(done.out, done.err)
    assert "2 of 3 files could not be read" in done.err and "1 path on standard input left out" in done.err
    assert done.out.startswith("caf\\udce9: ")
