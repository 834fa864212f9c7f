"""Small real data that ships inside libraries, written to disk in the format of the large data sets."""

from __future__ import annotations

import contextlib
from pathlib import Path

from ...regular_files import regular_json

DIGITS_TRAIN, DIGITS_TEST = 1442, 355
_COUNTS = {"train": DIGITS_TRAIN, "test": DIGITS_TEST}
_FORMAT = "golu-sample-digits/1"


def write_digits(folder: Path) -> Path:
    """Writes scikit-learn's 1,797 handwritten digits as 8 x 8 PNG files in class folders, unless they are there.

    The scans are those of the UCI "Optical Recognition of Handwritten Digits" set. Every fifth image of each class, by
    its place in the set, is in `test`, the others are in `train`.

    Args:
        folder: The folder to create, with `train/0/0000.png` and so on. It is created atomically.

    Returns:
        The folder.

    Raises:
        RequestError: something else lies there.
    """
    from ..storage.sample_folder import written_once

    return written_once(folder, "the digits", lambda: _are_there(folder), _write, {"format": _FORMAT, **_COUNTS})


def _are_there(folder: Path) -> bool:
    from ..storage.ownership import SAMPLE_MARKER

    with contextlib.suppress(OSError, ValueError):
        marker = regular_json(folder / SAMPLE_MARKER)
        return bool(marker == {"format": _FORMAT, **_COUNTS})
    return False


def _write(folder: Path) -> None:
    import numpy
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = numpy.rint(digits.images * (255 / 16)).astype(numpy.uint8)
    seen = [0] * 10
    for number, (image, label) in enumerate(zip(pixels, digits.target, strict=True)):
        split = "test" if seen[label] % 5 == 4 else "train"
        seen[label] += 1
        path = folder / split / str(label) / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
