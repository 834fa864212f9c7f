"""Scenes of real handwritten digits, written in COCO's own format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from golu_core.training.messages import say
from golu_core.training.storage import written_once
from golu_core.training.tasks import parsed_flags

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

DIGIT_SCENES_NAME = "digit-scenes"
DIGIT_SCENES_TRAIN, DIGIT_SCENES_TEST = 760, 103
"""Number of training images with an object, and of all test images."""
_IMAGES = {"train": 800, "val": 103}
_FORMAT = "golu-sample-scenes/1"
_SIDE = 96
_EMPTY_EVERY = 20
_CROWD_EVERY = 16
# not contiguous, like COCO's own
_CATEGORY_IDS = (1, 2, 3, 5, 8, 13, 21, 34, 55, 90)


def write_digit_scenes(folder: Path) -> Path:
    """Write 800 training and 103 test scenes of scikit-learn's digits in COCO 2017's layout, unless they exist.

    Each scene has one to four digits of 20 to 44 pixels on a noisy background, which overlap a little. Some scenes have
    a digit of 7 pixels, a crowd of small ones, or no digits at all. Masks are polygons, or RLE if a digit has a hole.
    Test scenes use other scans than training scenes.

    Args:
        folder: The folder for `train2017`, `val2017`, and `annotations`. It appears complete or not at all.

    Returns:
        The folder.

    Raises:
        RequestError: The folder has other contents.
    """
    marker = {"format": _FORMAT, **_IMAGES}
    return written_once(folder, "the scenes", lambda: _are_there(folder), _write, marker)


@dataclass(frozen=True)
class SampleDataFlags:
    """Write scenes of digits in COCO's format, for a first training of a detector."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """New folder for the images and their annotations."""


def sample_data_command(arguments: Sequence[str]) -> None:
    """Run `golu-detect sample-data DIR`."""
    flags = parsed_flags(SampleDataFlags, arguments, "golu-detect sample-data")
    say(f"written: {write_digit_scenes(flags.folder)}")


def _are_there(folder: Path) -> bool:
    """Return whether the folder contains scenes, ours or others in COCO's layout."""
    return all((folder / "annotations" / f"instances_{split}2017.json").is_file() for split in _IMAGES)


def _write(folder: Path) -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    (folder / "annotations").mkdir()
    for split, count in _IMAGES.items():
        scans = [n for n in range(len(digits.images)) if (n % 5 == 4) == (split == "val")]
        content = _write_scenes(folder / f"{split}2017", count, digits, scans, seed=len(split))
        path = folder / "annotations" / f"instances_{split}2017.json"
        path.write_text(json.dumps(content), encoding="utf-8")


def _write_scenes(folder: Path, count: int, digits: Any, scans: list[int], seed: int) -> dict[str, Any]:
    """Write the images of a split, and return the contents of its annotation file."""
    import numpy
    from PIL import Image

    random = numpy.random.default_rng(seed)
    folder.mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(count):
        scene = _Scene(random)
        _fill(scene, number, digits, scans)
        name = f"{number:012d}.png"
        Image.fromarray(scene.pixels).save(folder / name)
        images.append({"id": 1000 + 3 * number, "file_name": name, "height": _SIDE, "width": _SIDE})
        for annotation in scene.annotations:
            annotations.append({"id": len(annotations) + 1, "image_id": 1000 + 3 * number, **annotation})
    categories = [{"id": i, "name": str(digit), "supercategory": "digit"} for digit, i in enumerate(_CATEGORY_IDS)]
    return {"images": images, "annotations": annotations, "categories": categories}


class _Scene:
    """A noisy background, and the digits on it."""

    def __init__(self, random: numpy.random.Generator) -> None:
        import numpy

        self.random = random
        ground = random.uniform(20, 110, size=(1, 1, 3)) + random.normal(0, 8, size=(_SIDE, _SIDE, 3))
        self.pixels: NDArray[Any] = numpy.clip(ground, 0, 255).astype(numpy.uint8)
        self.occupied = numpy.zeros((_SIDE, _SIDE), dtype=bool)
        self.annotations: list[dict[str, Any]] = []

    def place(self, scan: NDArray[Any], size: int) -> NDArray[Any] | None:
        """Paint a digit at a random position and return its mask, (H, W) uint8; None if the scan is too faint."""
        import numpy
        from PIL import Image

        resized = Image.fromarray((scan * (255 / 16)).astype(numpy.uint8)).resize(
            (size, size), Image.Resampling.BICUBIC
        )
        ink = numpy.asarray(resized).astype(numpy.float64)[..., None] / 255
        places = self.random.integers(0, _SIDE - size + 1, (3, 2)).tolist()
        top, left = min(places, key=lambda p: self.occupied[p[0] : p[0] + size, p[1] : p[1] + size].sum())
        self.occupied[top : top + size, left : left + size] = True
        window = self.pixels[top : top + size, left : left + size]
        color = self.random.uniform(150, 255, size=3)
        window[:] = numpy.clip(window * (1 - ink) + color * ink, 0, 255).astype(numpy.uint8)
        mask = numpy.zeros((_SIDE, _SIDE), dtype=numpy.uint8)
        mask[top : top + size, left : left + size] = ink[..., 0] > 0.25
        return mask if mask.any() else None


def _fill(scene: _Scene, number: int, digits: Any, scans: list[int]) -> None:
    import numpy

    random = scene.random
    if number % _EMPTY_EVERY == _EMPTY_EVERY - 1:
        return
    for _ in range(random.integers(1, 5)):
        size = 7 if random.random() < 0.03 else int(random.integers(20, 45))
        chosen = int(random.choice(scans))
        mask = scene.place(digits.images[chosen], size)
        if mask is not None:
            scene.annotations.append(_annotation(mask, _CATEGORY_IDS[digits.target[chosen]], is_crowd=False))
    if number % _CROWD_EVERY == _CROWD_EVERY - 1:
        masks = [scene.place(digits.images[int(random.choice(scans))], 9) for _ in range(6)]
        crowd = numpy.maximum.reduce([mask for mask in masks if mask is not None])
        category = int(random.choice(_CATEGORY_IDS))
        scene.annotations.append(_annotation(crowd, category, is_crowd=True))


def _annotation(mask: NDArray[Any], category: int, is_crowd: bool) -> dict[str, Any]:
    import numpy
    from pycocotools import mask as rle

    encoded = rle.encode(numpy.asfortranarray(mask))
    polygons = None if is_crowd else _polygons(mask)
    segmentation: Any = polygons
    if polygons is None:
        columns = mask.T.ravel().astype(numpy.int8)
        runs = numpy.diff(numpy.flatnonzero(numpy.diff(numpy.r_[-1, columns, -1])))
        counts = [0, *runs.tolist()] if columns[0] else runs.tolist()
        segmentation = {"size": list(mask.shape), "counts": counts}
        encoded = rle.frPyObjects(segmentation, *mask.shape)
    else:
        encoded = rle.merge(rle.frPyObjects(polygons, *mask.shape))
    return {
        "category_id": category,
        "iscrowd": int(is_crowd),
        "area": float(rle.area(encoded)),
        "bbox": [float(value) for value in rle.toBbox(encoded)],
        "segmentation": segmentation,
    }


def _polygons(mask: NDArray[Any]) -> list[list[float]] | None:
    """Return the outlines of a mask; None if it has a hole, which COCO's polygons cannot represent."""
    import numpy
    from contourpy import FillType, contour_generator

    padded = numpy.pad(mask.astype(numpy.float64), 1)
    # pixel centers are at .5 in COCO's coordinates, and the padding shifts everything by 1
    found = contour_generator(z=padded, fill_type=FillType.OuterOffset).filled(0.5, 2.0)
    outlines = []
    for points, offsets in zip(*found, strict=True):
        if len(offsets) > 2:
            return None
        outlines.append([float(v) for v in (points[:-1] - 0.5).ravel()])
    return [outline for outline in outlines if len(outline) >= 6] or None
