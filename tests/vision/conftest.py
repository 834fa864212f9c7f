"""Small real images for the command line's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from golu_core.training.data.digits import write_digits
from vision_program import copy_few


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits sample, as class folders of PNG."""
    return write_digits(tmp_path_factory.mktemp("data") / "digits")


@pytest.fixture(scope="session")
def few_digits(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """52 training and 23 test images of four classes: neither divides by two processes or a batch of 16.

    One of each split has transparent pixels.
    """
    root = copy_few(digits, tmp_path_factory.mktemp("few") / "digits")
    for split in ("train", "test"):
        seen_through = sorted((root / split / "0").iterdir())[0]
        gray = Image.open(seen_through).convert("L")
        Image.merge("LA", (gray, gray.point(lambda value: 255 - value // 2))).save(seen_through)
    return root
