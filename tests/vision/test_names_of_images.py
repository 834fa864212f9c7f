"""Classes and images with names that somebody made up, through every command of golu-vision."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy
import pytest
import yaml
from PIL import Image

from golu_core.training.messages.text_sinks import printable
from golu_vision.cli import COMMAND_LINE
from hostile_names import HOSTILE_NAMES, assert_harmless, printed_by
from vision_program import FAST

NAMES = list(HOSTILE_NAMES.values())
EXACT = [name.encode("utf-8", "backslashreplace").decode() for name in NAMES]
RUN = "runs/vision/digits/golu/seed0"
pytestmark = pytest.mark.filterwarnings("ignore:Glyph:UserWarning", "ignore:constrained_layout:UserWarning")
COMMANDS = {
    "recipes": [[]],
    "train": [["digits", "--data.root", "photos", "--epochs", "1", *FAST], [f"no {NAMES[16]}"]],
    "evaluate": [[RUN], [RUN, "--details", "details"]],
    "export": [[RUN, "--format", "safetensors", "--out", "exported"]],
    "predict": [[RUN, "photos/val", "--format", form] for form in ("table", "csv", "jsonl")]
    + [[RUN, "photos/val", "--grid", "grid.png", "--top", "1"]],
}
"""Of each command, what its arguments are here."""


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = numpy.random.default_rng(seed).integers(0, 255, (8, 8), dtype=numpy.uint8)
    Image.fromarray(pixels).save(path, format="png")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Class folders with these names and images with these names in them, and a run that was trained on them."""
    root = tmp_path_factory.mktemp("names")
    for number, name in enumerate(NAMES):
        draw(root / "photos" / "train" / name / "0.png", number)
        draw(root / "photos" / "val" / name / f"{name}.png", 100 + number)
    for words in COMMANDS["train"][:1]:
        done = printed_by(COMMAND_LINE.main, "train", *words, cwd=root)
        assert_harmless(done.out, done.err)
        assert done.status == 0, done.err
    return root


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("command", sorted({"recipes", "train", "evaluate", *COMMAND_LINE.task.commands}))
def test_every_command_survives_every_name(command, encoding, place):
    for number, words in enumerate(COMMANDS[command]):
        if encoding == "ascii":
            words = [f"ascii-{word}" if word in ("details", "exported", "grid.png") else word for word in words]
        done = printed_by(COMMAND_LINE.main, command, *words, cwd=place, encoding=encoding)
        assert done.status == (2 if (command, number) == ("train", 1) else 0), done.err
        assert_harmless("" if "csv" in words else done.out, done.err)  # CSV in a file keeps every value


def predicted(place: Path, form: str) -> str:
    done = printed_by(COMMAND_LINE.main, "predict", RUN, "photos/val", "--format", form, "--top", "24", cwd=place)
    assert done.status == 0, done.err
    out: str = done.out
    return out


def test_predictions_are_by_name(place):
    paths = {f"photos/val/{name}/{name}.png" for name in NAMES}
    lines = [json.loads(line) for line in predicted(place, "jsonl").splitlines()]
    assert {line["image"] for line in lines} == paths
    assert all({found["name"] for found in line["classes"]} == set(NAMES) for line in lines)
    rows = list(csv.DictReader(io.StringIO(predicted(place, "csv"), newline="")))
    assert {row["class"] for row in rows} == set(EXACT)
    assert {row["image"] for row in rows} == {f"photos/val/{name}/{name}.png" for name in EXACT}
    table = predicted(place, "table")
    assert len(table.splitlines()) == len(NAMES)
    assert all(printable(f"photos/val/{name}/{name}.png: ") in table for name in NAMES)


def test_details_are_by_name(place):
    if not (place / "details").exists():
        assert printed_by(COMMAND_LINE.main, "evaluate", RUN, "--details", "details", cwd=place).status == 0
    with (place / "details" / "classes.csv").open(encoding="utf-8", newline="") as file:
        assert {row["class"] for row in csv.DictReader(file)} == set(EXACT)
    with (place / "details" / "confusion.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert {row[0] for row in rows[1:]} == set(EXACT)
    assert set(rows[0][1:]) == {f"chosen {name}" for name in EXACT}
    assert {path.name for path in (place / "details").glob("*.png")} == {
        "confusion.png",
        "mistakes.png",
        "precision-recall.png",
    }
    assert (place / RUN / "samples" / "worst.png").exists()


def test_a_card_is_read_as_it_is_written(place):
    if not (place / "exported").exists():
        words = ["export", RUN, "--format", "safetensors", "--out", "exported"]
        assert printed_by(COMMAND_LINE.main, *words, cwd=place).status == 0
    header = (place / "exported" / "README.md").read_text(encoding="utf-8").split("---\n")[1]
    assert yaml.safe_load(header)["pipeline_tag"] == "image-classification"


# ------------------------------------------------------------------------------------------------------ lists of images


LISTS = {
    "Windows": lambda names: "\r\n".join(names).encode() + b"\r\n",
    "a byte order mark": lambda names: "\n".join(names).encode("utf-8-sig"),
    "empty lines and folders": lambda names: "\n\n".join([*names, "/", ".", "photos"]).encode(),
}


@pytest.mark.parametrize("kind", LISTS)
def test_lists_of_paths(kind, place):
    names = [f"photos/train/{name}/0.png" for name in ("-1", "bill_$10", "\u732b")]
    words = ["predict", RUN, "-", "--format", "jsonl"]
    done = printed_by(COMMAND_LINE.main, *words, cwd=place, stdin=LISTS[kind](names))
    assert done.status == 0, done.err
    assert [json.loads(line)["image"] for line in done.out.splitlines()] == names
    assert ("3 paths on standard input left out, as folders: /, ., photos" in done.err) == ("folders" in kind)


def test_paths_that_name_nothing_stop_nothing_else(place):
    """A NUL, bytes that are not UTF-8, a name that is too long."""
    paths = b"a\0b\nphotos/train/-1/0.png\n\xff\xfe.png\n" + b"n" * 5000 + b"\nphotos/train/caf\xe9/0.png\n"
    done = printed_by(COMMAND_LINE.main, "predict", RUN, "-", "--top", "1", cwd=place, stdin=paths)
    assert done.status == 1
    assert_harmless(done.out, done.err)
    assert len(done.out.splitlines()) == 2 and "caf\\udce9" in done.out
    assert "a\\x00b cannot be read" in done.err and "3 of 5 images could not be read" in done.err


def test_a_list_that_is_not_utf_8_is_refused(place):
    done = printed_by(COMMAND_LINE.main, "predict", RUN, "-", cwd=place, stdin="a.png\n".encode("utf-16"))
    assert done.status == 2 and "UTF-16" in done.err


def test_what_is_no_image_is_counted_and_named(place, tmp_path):
    for name in ("a.png", "b.png"):
        draw(tmp_path / "mixed" / name, 1)
    for name in ("c.heic", "d.HEIC", "notes.txt"):
        (tmp_path / "mixed" / name).write_bytes(b"")
    done = printed_by(COMMAND_LINE.main, "predict", str(place / RUN), "mixed", cwd=tmp_path)
    assert done.status == 0 and len(done.out.splitlines()) == 2
    assert "mixed has 3 files that are not read as images (2 .heic, 1 .txt), such as c.heic, d.HEIC" in done.err
