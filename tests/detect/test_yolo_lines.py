"""The lines that Ultralytics writes: each is read as what it is, or refused with one message."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
from PIL import Image as Pillow

from golu_core.training.messages.errors import RequestError
from golu_detect.config import Data
from golu_detect.data import load_data
from golu_detect.layouts import find_splits
from golu_detect.recipes import RECIPES

WIDTH, HEIGHT = 120, 80
POINTS = 17
Random = numpy.random.Generator


def box(random: Random) -> list[float]:
    w, h = random.uniform(0.1, 0.4, 2)
    return [random.uniform(w / 2, 1 - w / 2), random.uniform(h / 2, 1 - h / 2), w, h]


def polygon(random: Random, corners: int = 0) -> list[float]:
    x, y, w, h = box(random)
    angles = numpy.sort(random.uniform(0, 2 * numpy.pi, corners or int(random.integers(5, 12))))
    points = numpy.stack([x + w / 2 * numpy.cos(angles), y + h / 2 * numpy.sin(angles)], axis=1)
    return [float(v) for v in points.ravel()]


def pose(random: Random, numbers: int, keypoints: int = POINTS) -> list[float]:
    x, y, w, h = values = box(random)
    for _ in range(keypoints):
        values += [x + w * random.uniform(-0.5, 0.5), y + h * random.uniform(-0.5, 0.5)]
        values += [float(random.integers(0, 3))] * (numbers - 2)
    return values


TASKS: dict[str, tuple[Callable[[Random], list[float]], str]] = {
    "detect": (box, ""),
    "segment": (polygon, ""),
    "obb": (lambda random: polygon(random, 4), ""),
    "pose of 2": (lambda random: pose(random, 2), f"kpt_shape: [{POINTS}, 2]\n"),
    "pose of 3": (lambda random: pose(random, 3), f"kpt_shape: [{POINTS}, 3]\nflip_idx: [0]\n"),
    "pose of 1 keypoint": (lambda random: pose(random, 2, 1), "kpt_shape: [1, 2]\n"),
    "pose of 4 keypoints": (lambda random: pose(random, 2, 4), "kpt_shape: [4, 2]\n"),
}
# what save_conf, and a tracker that follows one object, put behind
ENDS: dict[str, Callable[[Random], list[float]]] = {
    "a confidence": lambda random: [float(random.uniform(0.3, 0.99))],
    "a confidence and a track": lambda random: [float(random.uniform(0.3, 0.99)), 1.0],
}


def written(values: list[float]) -> str:
    """As Ultralytics' save_txt formats them."""
    return ("%g " * len(values)).rstrip() % tuple(values)


def data_set(root: Path, lines: dict[str, list[list[float]]], more: str) -> None:
    for split, rows in lines.items():
        for number, values in enumerate(rows):
            for folder in ("images", "labels"):
                (root / folder / split).mkdir(parents=True, exist_ok=True)
            Pillow.new("RGB", (WIDTH, HEIGHT)).save(root / "images" / split / f"{number:02d}.png")
            (root / "labels" / split / f"{number:02d}.txt").write_text(f"1 {written(values)}\n")
    (root / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames: [cat, dog]\n{more}")


def rows_of(task: str, end: str | None) -> dict[str, list[list[float]]]:
    random = numpy.random.default_rng(3)
    make, _ = TASKS[task]
    return {
        split: [make(random) + (ENDS[end](random) if end else []) for _ in range(count)]
        for split, count in (("train", 12), ("val", 5))
    }


@pytest.mark.parametrize("task", TASKS)
def test_a_line_is_read_as_what_it_is(task, tmp_path):
    rows = rows_of(task, None)
    data_set(tmp_path, rows, TASKS[task][1])
    for split, name in zip(find_splits(tmp_path, None), ("train", "val"), strict=True):
        annotations = split.annotations
        assert len(annotations.images) == len(rows[name])
        for image, values in zip(annotations.images, rows[name], strict=True):
            (entry,) = annotations.objects[image.id]
            shares = numpy.array([float(word) for word in written(values).split()])
            if task in ("segment", "obb"):
                points = shares.reshape(-1, 2) * (WIDTH, HEIGHT)
                start = points.min(axis=0)
                expected = [*start, *(points.max(axis=0) - start)]
                assert numpy.array(entry["segmentation"]).reshape(-1, 2) == pytest.approx(points)
            else:
                size = shares[2:4] * (WIDTH, HEIGHT)
                expected = [*(shares[:2] * (WIDTH, HEIGHT) - size / 2), *size]
                assert entry["segmentation"] is None
            assert entry["bbox"] == pytest.approx(expected) and entry["category_id"] == 2
    config = dataclasses.replace(RECIPES["fasterrcnn-digits"], data=Data(root=tmp_path, classes="file"))
    remarks = " ".join(load_data(config).remarks)
    assert ("the keypoints of 12 objects are left out" in remarks) == task.startswith("pose")
    assert ("12 objects have four corners" in remarks) == (task == "obb")


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("task", TASKS)
def test_a_prediction_is_no_label(task, end, tmp_path):
    data_set(tmp_path, rows_of(task, end), TASKS[task][1])
    with pytest.raises(RequestError) as refusal:
        find_splits(tmp_path, None)
    message = str(refusal.value)
    assert "\n" not in message
    assert ("kpt_shape" if task.startswith("pose") else "without save_conf") in message


@pytest.mark.parametrize("shape", ["17", "[17]", "[17, 4]", "[0, 3]", "[17.5, 2]", "{a: 1}", "[true, 2]", "[17, 2, 1]"])
def test_a_shape_of_keypoints_that_is_none(shape, tmp_path):
    data_set(tmp_path, rows_of("detect", None), f"kpt_shape: {shape}\n")
    with pytest.raises(RequestError, match=r"has kpt_shape .*expected a number of keypoints, and 2 or 3"):
        find_splits(tmp_path, None)


def test_boxes_without_keypoints_may_stand_among_poses(tmp_path):
    rows = rows_of("pose of 3", None)
    rows["train"][3] = rows["train"][3][:4]
    data_set(tmp_path, rows, TASKS["pose of 3"][1])
    train, _ = find_splits(tmp_path, None)
    assert train.annotations.notes == ("the keypoints of 11 objects are left out, their boxes are used",)


def test_folders_of_classes_are_named(tmp_path):
    for split in ("train", "val"):
        (tmp_path / split / "cat").mkdir(parents=True)
        Pillow.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / split / "cat" / "a.png")
    with pytest.raises(RequestError, match="it has train, val; a folder for each class is for golu-vision"):
        find_splits(tmp_path, None)
