"""Damage in a data set: `train --dry-run` and `train` refuse it alike and write nothing, or every sample can be read.

The kinds of damage are those of the other tests' tables, in the training or in the test split, and further ones that
only the reading of a single sample used to find.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image as Pillow

from command_line import runner_in_this_process
from golu_core.training.data.orders import SampleKey
from golu_core.training.messages.errors import RequestError
from golu_detect.annotations import read_annotations
from golu_detect.cli import COMMAND_LINE
from golu_detect.coco import instance_target, learned_objects, segmentation_target
from golu_detect.config import Data
from golu_detect.data import check_every_image, load_data
from golu_detect.recipes import RECIPES
from golu_detect.segmentations import outline_problem, segmentation_problem
from test_own_files import HEIGHT, KEPT, REFUSED, WIDTH, Content, content, first, setting

Damage = Callable[[Content, Path], object]


def in_file(change: Callable[[Content], object]) -> Damage:
    return lambda made, images: change(made)


def in_image(write: Callable[[Path], object]) -> Damage:
    return lambda made, images: write(images / "2.png")


def resized(path: Path) -> None:
    Pillow.new("RGB", (WIDTH + 1, HEIGHT)).save(path)


def sideways(path: Path) -> None:
    picture = Pillow.new("RGB", (HEIGHT, WIDTH))
    picture.getexif()[0x0112] = 6
    picture.save(path, exif=picture.getexif())


DAMAGE: dict[str, Damage] = {
    **{name: in_file(change) for name, (change, _) in REFUSED.items()},
    **{name: in_file(change) for name, change in KEPT.items()},
    "segmentation of a number": in_file(setting(segmentation=3)),
    "segmentation empty": in_file(setting(segmentation=[])),
    "segmentation without counts": in_file(setting(segmentation={"size": [HEIGHT, WIDTH]})),
    "a crowd without a segmentation": in_file(setting(segmentation=None, iscrowd=1)),
    "no width and no segmentation": in_file(setting(segmentation=None, bbox=[5, 5, 0, 9])),
    "hardly any width": in_file(setting(bbox=[0, 5, 1e-6, 9])),
    "no height and a wrong polygon": in_file(setting(segmentation=[[1, 2]], bbox=[5, 5, 9, 0])),
    "outside but for its edge": in_file(setting(segmentation=None, bbox=[-9, 5, 9, 9])),
    "an image of another height": in_file(lambda made: made["images"][1].update(height=HEIGHT + 7)),
    "an image that is not there": in_file(lambda made: made["images"][1].update(file_name="none.png")),
    "an image without objects, and not there": in_file(
        lambda made: made["images"].append({**made["images"][0], "id": 9, "file_name": "none.png"})
    ),
    "an image file of another size": in_image(resized),
    "an image file turned by EXIF": in_image(sideways),
    "an image file of nothing": in_image(lambda path: path.write_bytes(b"")),
    "an image file of text": in_image(lambda path: path.write_text("no image")),
}
DETECTED = [name for name, recipe in RECIPES.items() if name.endswith("digits") or name in ("objects", "instances")]
DATA_RECIPES = sorted({*DETECTED, "segments"})


def written(folder: Path, damage: Damage, split: str) -> Path:
    """A data set in COCO's layout, one split damaged."""
    for name in ("train", "val"):
        images = folder / f"{name}2017"
        images.mkdir(parents=True)
        for n in (1, 2, 3):
            Pillow.new("RGB", (WIDTH, HEIGHT), (40 * n, 0, 0)).save(images / f"{n}.png")
        made = content()
        if name == split:
            damage(made, images)
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / "annotations" / f"instances_{name}2017.json").write_text(json.dumps(made))
    return folder


@pytest.fixture
def run_here(monkeypatch, capfd):
    return runner_in_this_process(COMMAND_LINE, monkeypatch, capfd)


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if "mine" not in path.parts)


def loaded_as_the_recipe_does(recipe: str, root: Path) -> Any:
    config = dataclasses.replace(RECIPES[recipe], data=Data(root=root, classes="file"))
    if config.segments:
        config = dataclasses.replace(config, augment=dataclasses.replace(config.augment, fewest_pixels=0))
    return load_data(config)


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("case", DAMAGE)
def test_a_refusal_comes_before_the_first_file(case, split, tmp_path, run_here):
    root = written(tmp_path / "mine", DAMAGE[case], split)
    refused: dict[str, str] = {}
    for recipe in DATA_RECIPES:
        try:
            data = loaded_as_the_recipe_does(recipe, root)
        except RequestError as error:
            refused[recipe] = str(error)
        else:
            assert check_every_image(data, 0) == len(data.train) + len(data.test)
            check_that_float32_keeps_boxes(data)
    if refused:  # by one recipe's commands; which one changes from case to case
        recipe = sorted(refused)[(2 * list(DAMAGE).index(case) + (split == "val")) % len(refused)]
        flags = ["--data.root", str(root), "--data.classes", "file", "--batch-size", "2", "--group-size", "1"]
        if RECIPES[recipe].segments:
            flags += ["--augment.fewest-pixels", "0"]
        for more in (["--dry-run"], []):
            done = run_here("train", recipe, *flags, *more, cwd=tmp_path)
            assert done.returncode == 2, done.stderr
            assert done.stderr == f"golu-detect: {refused[recipe]}\n"
            assert not files_in(tmp_path)


def check_that_float32_keeps_boxes(data: Any) -> None:
    """What a detector learns from has a width and a height however it is mirrored and scaled."""
    for epoch in range(4):
        batch = data.train.__getitems__([SampleKey(n, epoch, n) for n in range(len(data.train))])
        for target in batch.targets:
            if "boxes" in target:
                scaled = target["boxes"] * torch.tensor(800 / HEIGHT)
                assert (scaled[:, 2:] > scaled[:, :2]).all()


def test_a_damaged_file_of_a_named_data_set_is_refused_by_a_dry_run(tmp_path, run_here):
    written(tmp_path / "mine" / "coco", in_file(setting(segmentation=None)), "train")
    flags = ["--data-dir", str(tmp_path / "mine"), "--data.classes", "file"]
    dry, run = (run_here("train", "maskrcnn-resnet50-fpn-coco", *flags, *more, cwd=tmp_path)
                for more in (["--dry-run"], []))  # fmt: skip
    assert (dry.returncode, run.returncode) == (2, 2) and dry.stderr == run.stderr
    assert "annotation 3 has no segmentation" in dry.stderr and not files_in(tmp_path)


@pytest.mark.parametrize("kind", ["boxes", "masks", "segmentation"])
def test_the_objects_that_are_checked_are_those_that_are_learned(kind, tmp_path):
    """Objects that no target has may have any segmentation, as they always could."""
    random = numpy.random.default_rng(0)
    made = content()
    for number in range(60):
        corner, size = random.uniform(-8, 50, 2), random.choice([0, 1e-7, 5e-4, 2e-3, 4, 30], 2)
        if (corner >= (WIDTH, HEIGHT)).any() or (corner + size < 0).any():
            continue
        entry = {**first(made), "bbox": [*map(float, corner), *map(float, size)], "id": 100 + number}
        entry |= {"image_id": int(random.integers(1, 4)), "iscrowd": int(random.random() < 0.2)}
        made["annotations"].append(entry)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(made))
    annotations, labels = read_annotations(path), {1: 1}
    used = annotations.images[:2]
    chosen = learned_objects(annotations, used, labels, kind)
    counted = 0
    for place, image in enumerate(annotations.images):
        entries = annotations.objects[image.id]
        if image not in used:
            assert not chosen[annotations.objects.owners == place].any()
        elif kind == "segmentation":
            assert segmentation_target(entries, image, labels).any()
            counted += sum(entry["category_id"] in labels for entry in entries)
        else:
            counted += len(instance_target(entries, image, labels, kind == "masks")["boxes"])
    assert chosen.sum() == counted > 9


def test_the_quick_check_of_an_outline_is_the_patient_one():
    random = numpy.random.default_rng(0)
    values = [1, 2.5, 1e6, 1000001.0, -1e6, "x", None, True, [], float("nan"), 1e300]
    outlines: list[Any] = [None, [], [[]], {}, "x", 3, {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}]
    for _ in range(2000):
        lengths = random.integers(4, 9, int(random.integers(1, 3)))
        odds = [0.4, 0.4] + [0.2 / 9] * 9 if random.random() < 0.5 else [0.5, 0.5] + [0] * 9
        outlines.append([[values[n] for n in random.choice(11, length, p=odds)] for length in lengths])
    sound = 0
    for outline in outlines:
        found = outline_problem(json.dumps(outline).encode(), HEIGHT, WIDTH)
        assert found == segmentation_problem(json.loads(json.dumps(outline)), HEIGHT, WIDTH)
        sound += found is None
    assert 200 < sound < 1800
