"""Scenes of digits, whole and a few of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from golu_detect.samples import write_digit_scenes


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample as it is written."""
    return write_digit_scenes(tmp_path_factory.mktemp("data") / "digit-scenes")


@pytest.fixture(scope="session")
def few_scenes(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with 13 training and 7 test scenes, one of each without objects, and crowds."""
    root = tmp_path_factory.mktemp("few") / "digit-scenes"
    (root / "annotations").mkdir(parents=True)
    for split, numbers in (("train", [*range(8, 20), 30]), ("val", [0, 1, 2, 3, 15, 19, 31])):
        path = scenes / "annotations" / f"instances_{split}2017.json"
        content = json.loads(path.read_text())
        images = [content["images"][n] for n in numbers]
        kept = {image["id"] for image in images}
        content["images"] = images
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] in kept]
        (root / "annotations" / path.name).write_text(json.dumps(content))
        (root / f"{split}2017").mkdir()
        for image in images:
            shutil.copy(scenes / f"{split}2017" / image["file_name"], root / f"{split}2017")
    return root.parent
