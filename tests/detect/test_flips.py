"""Every field of every golu-detect recipe, changed; see `flips`."""

from __future__ import annotations

import json
import shutil

import pytest
from PIL import Image

from flips import Flip, FlipCases
from golu_detect.cli import COMMAND_LINE
from golu_detect.recipes import RECIPES


def shrink(name: str) -> list[str]:
    recipe = RECIPES[name]
    flags = ["--model.backbone", "small", "--data.classes", "file", "--epochs", "3", "--batch-size", "4"]
    flags += ["--max-device-batch", "None", "--schedule.warmup", "steps", "--schedule.warmup.steps", "1"]
    if recipe.segments:
        flags += ["--augment.resize", "64", "96", "--augment.crop", "48", "--augment.eval-side", "64"]
        flags += ["--augment.fewest-pixels", "150"]
    else:
        flags += ["--model.shorter-side", "64", "96", "--model.longer-side", "112"]
    if recipe.schedule.kind == "milestones":
        flags += ["--schedule.milestones", "1", "--schedule.factors", "0.1"]
    return flags


CASES = FlipCases(COMMAND_LINE, shrink, quick=())


@pytest.fixture(scope="module")
def mixed_scenes(few_scenes, tmp_path_factory):
    """A few scenes, every other one cut in two: pictures of two aspect ratios."""
    top = tmp_path_factory.mktemp("mixed")
    shutil.copytree(few_scenes, top, dirs_exist_ok=True)
    root = top / "digit-scenes"
    for split in ("train", "val"):
        path = root / "annotations" / f"instances_{split}2017.json"
        content = json.loads(path.read_text())
        cut = {image["id"] for image in content["images"][::2]}
        for image in content["images"][::2]:
            file = root / f"{split}2017" / image["file_name"]
            Image.open(file).crop((0, 0, 96, 56)).save(file)
            image["height"] = 56
        content["annotations"] = [
            entry
            for entry in content["annotations"]
            if entry["image_id"] not in cut or (entry["bbox"][1] + entry["bbox"][3] <= 56 and not entry["iscrowd"])
        ]
        for entry in content["annotations"]:
            if entry["image_id"] in cut and isinstance(entry["segmentation"], dict):
                left, top_, width, height = entry["bbox"]
                corners = [left, top_, left + width, top_, left + width, top_ + height, left, top_ + height]
                entry["segmentation"] = [corners]
        path.write_text(json.dumps(content))
    return top


@pytest.mark.parametrize(("recipe", "flip"), CASES.parameters())
def test_a_field_changes_numbers_or_is_refused_or_is_of_place(
    recipe: str, flip: Flip, mixed_scenes, tmp_path, monkeypatch, capfd
):
    places = ["--data.name", "digit-scenes", "--data-dir", str(mixed_scenes)]
    CASES.check(recipe, flip, places, tmp_path, monkeypatch, capfd)
