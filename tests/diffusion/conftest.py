"""A few digits as a folder of images."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from golu_core.training.data.digits import write_digits


@pytest.fixture(scope="session")
def few_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """70 images: 63 for training, which a batch of 16 does not divide, and 7 for the test."""
    root = tmp_path_factory.mktemp("images")
    digits = write_digits(root / "digits")
    (root / "few").mkdir()
    for path in sorted((digits / "train" / "3").iterdir())[:70]:
        shutil.copy(path, root / "few")
    for path in sorted((root / "few").iterdir())[8:10]:  # one for training and one for the test, seen through
        gray = Image.open(path).convert("L")
        Image.merge("LA", (gray, gray.point(lambda value: 255 - value // 2))).save(path)
    return root / "few"
