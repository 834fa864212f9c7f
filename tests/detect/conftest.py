"""Scenes of digits, whole and a few of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from detect_program import copy_few
from golu_detect.samples import write_digit_scenes


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample as it is written."""
    return write_digit_scenes(tmp_path_factory.mktemp("data") / "digit-scenes")


@pytest.fixture(scope="session")
def few_scenes(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with 13 training and 7 test scenes, one of each without objects, and crowds."""
    return copy_few(scenes, tmp_path_factory.mktemp("few"))


@pytest.fixture(scope="session")
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
