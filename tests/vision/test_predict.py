"""`golu-vision predict`: what evaluation sees, in every format, of any images that are named."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from command_line import runner_in_this_process
from golu_core.training.data.orders import SampleKey
from golu_core.training.runs.finished import FinishedRun
from golu_core.training.runs.results import read_result, write_result
from golu_vision.cli import COMMAND_LINE
from golu_vision.config import VisionConfig
from golu_vision.data import load_data
from golu_vision.predict import CLASSES_FILE, Classifier
from vision_program import FAST, VISION

PLACE = Path("runs/vision/digits/golu/seed0")


@pytest.fixture(scope="module")
def trained(few_digits, tmp_path_factory):
    cwd = tmp_path_factory.mktemp("predict")
    done = VISION.run("train", "digits", "--data.root", str(few_digits), "--epochs", "2", *FAST, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd


@pytest.fixture
def vision(monkeypatch, capfd):
    return runner_in_this_process(COMMAND_LINE, monkeypatch, capfd)


@pytest.fixture
def images(few_digits):
    """The test split, by class name."""
    split = next(few_digits / name for name in ("val", "test") if (few_digits / name).is_dir())
    return sorted(split.rglob("*.png"))


def test_it_sees_what_evaluation_sees(trained, images):
    """Each pixel, each logit bit for bit, and so the metric of result.json."""
    classifier = Classifier(trained / PLACE)
    config = FinishedRun.at(trained / PLACE, VisionConfig).config
    data = load_data(config)
    assert classifier.classes == tuple(data.classes)
    expected = data.test.__getitems__([SampleKey(n, -1, n) for n in range(len(data.test))])
    read = torch.stack([classifier.read(path) for path in images])
    assert torch.equal(read, expected.images)
    found = classifier.predictions(images, read, 1)
    right = [one.path.parent.name == one.classes[0][0] for one in found]
    top1 = json.loads((trained / PLACE / "result.json").read_text())["metrics"]["top1"]
    assert 100 * sum(right) / len(right) == pytest.approx(top1)


def test_a_picture_of_another_size_is_scaled_as_in_evaluation(trained, images, tmp_path):
    picture = Image.open(images[0]).convert("RGB").resize((90, 61))
    picture.save(tmp_path / "large.png")
    classifier = Classifier(trained / PLACE)
    from golu_core.training.data.images import read_image
    from golu_vision.transforms import evaluation_transform

    expected = evaluation_transform(classifier.config.data)(read_image(tmp_path / "large.png"))
    assert torch.equal(classifier.read(tmp_path / "large.png"), expected)


def test_formats(trained, images, vision):
    words = ["predict", str(trained / PLACE), *map(str, images[:3]), "--top", "2", "--format"]
    table = vision(*words, "table", cwd=trained).stdout.splitlines()
    rows = list(csv.DictReader(io.StringIO(vision(*words, "csv", cwd=trained).stdout)))
    objects = [json.loads(line) for line in vision(*words, "jsonl", cwd=trained).stdout.splitlines()]
    assert len(table) == len(objects) == 3 and len(rows) == 6
    for line, found, path in zip(table, objects, images[:3], strict=True):
        assert found["image"] == str(path) and len(found["classes"]) == 2
        first, second = found["classes"]
        assert first["probability"] >= second["probability"]
        assert line.startswith(f"{path}: {first['name']} {100 * first['probability']:.1f} %, ")
        mine = [row for row in rows if row["image"] == str(path)]
        assert [row["class"] for row in mine] == [first["name"], second["name"]]
        assert float(mine[0]["probability"]) == pytest.approx(first["probability"], abs=1e-6)


def test_folders_and_standard_input(trained, images, vision, monkeypatch, tmp_path):
    for number, path in enumerate(images[:4]):
        (tmp_path / "some" / str(number % 2)).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "some" / str(number % 2) / path.name)
    (tmp_path / "some" / "notes.txt").write_text("no image")
    done = vision("predict", str(trained / PLACE), "some", "--grid", "out/grid.png", cwd=tmp_path)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 4, done.stderr
    assert Image.open(tmp_path / "out" / "grid.png").size[0] > 300
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{images[0]}\n\n{images[1]}\n"))
    done = vision("predict", str(trained / PLACE), "-", "--top", "1", cwd=tmp_path)
    assert [line.partition(": ")[0] for line in done.stdout.splitlines()] == [str(path) for path in images[:2]]


def test_one_unreadable_picture_stops_nothing(trained, images, vision, tmp_path):
    (tmp_path / "broken.png").write_bytes(images[0].read_bytes()[:40])
    done = vision("predict", str(trained / PLACE), "broken.png", str(images[0]), "missing.png", cwd=tmp_path)
    assert done.returncode == 1 and done.stdout.startswith(f"{images[0]}: ") and len(done.stdout.splitlines()) == 1
    assert "broken.png" in done.stderr and "missing.png" in done.stderr
    assert "2 of 3 images could not be read" in done.stderr and "Traceback" not in done.stderr


def test_values_of_csv_are_the_names(trained, images, vision, tmp_path):
    shutil.copy(images[0], tmp_path / "=1+1.png")
    done = vision("predict", str(trained / PLACE), "=1+1.png", "--format", "csv", cwd=tmp_path)
    assert done.returncode == 0 and "\n=1+1.png,1," in done.stdout


def test_a_run_from_before_classes_were_kept(trained, images, vision, tmp_path):
    """Its data tell them."""
    shutil.copytree(trained / PLACE, tmp_path / "run")
    result = read_result(tmp_path / "run" / "result.json")
    files = {name: digest for name, digest in result.files.items() if name != CLASSES_FILE}
    write_result(tmp_path / "run" / "result.json", dataclasses.replace(result, files=files))
    (tmp_path / "run" / CLASSES_FILE).unlink()
    done = vision("predict", str(tmp_path / "run"), str(images[0]), cwd=trained)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name at least one image"),
        (["--top", "0"], "at least 1"),
        (["IMAGE", "--top", "0"], "at least 1"),
        (["IMAGE", "--grid", "taken.png"], "did not make it"),
        (["empty"], "has no image"),
    ],
)
def test_wrong_requests(words, message, trained, images, vision, tmp_path):
    (tmp_path / "taken.png").write_bytes(b"mine")
    (tmp_path / "empty").mkdir()
    given = [str(images[0]) if word == "IMAGE" else word for word in words]
    done = vision("predict", str(trained / PLACE), *given, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr and not done.stdout
    assert (tmp_path / "taken.png").read_bytes() == b"mine"


def test_a_damaged_run(trained, images, vision, tmp_path):
    shutil.copytree(trained / PLACE, tmp_path / "run")
    (tmp_path / "run" / CLASSES_FILE).write_text('{"classes": ["x"]}')
    done = vision("predict", str(tmp_path / "run"), str(images[0]), cwd=trained)
    assert done.returncode == 2 and "is damaged" in done.stderr
