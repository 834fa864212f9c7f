"""Small real data that ships inside libraries, written to disk in the format of the large data sets."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

DIGITS_TRAIN, DIGITS_TEST = 1442, 355
_COMPLETE = "complete.json"


def write_digits(folder: Path) -> Path:
    """Writes scikit-learn's 1,797 handwritten digits as 8 x 8 PNG files in class folders, unless they are there.

    The scans are those of the UCI "Optical Recognition of Handwritten Digits" set. Every fifth image of each class, by
    its place in the set, is in `test`, the others are in `train`.

    Args:
        folder: gets `train/0/0000.png` and so on. It appears whole or not at all.

    Returns:
        The folder.
    """
    if (folder / _COMPLETE).exists():
        return folder
    from .training.locks import only_writer

    with only_writer(folder):
        if not (folder / _COMPLETE).exists():
            _write_digits(folder)
    return folder


def _write_digits(folder: Path) -> None:
    import numpy
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = numpy.rint(digits.images * (255 / 16)).astype(numpy.uint8)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    seen = [0] * 10
    counts = {"train": 0, "test": 0}
    for number, (image, label) in enumerate(zip(pixels, digits.target, strict=True)):
        split = "test" if seen[label] % 5 == 4 else "train"
        seen[label] += 1
        counts[split] += 1
        path = partial / split / str(label) / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    (partial / _COMPLETE).write_text(json.dumps(counts))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
