"""YOLO's layout: `data.yaml`, images in `images/`, and a text file of boxes or polygons for each in `labels/`."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from golu_core.regular_files import open_regular
from golu_core.training.errors import RequestError
from golu_core.training.image_files import image_files
from golu_core.training.text_sinks import printable
from golu_core.training.user_files import LONGEST_PATH, excerpt, read_lines, read_yaml

from .annotations import Annotations, Image
from .packed import PackedObjects
from .segmentations import Entry

_FILES = ("data.yaml", "data.yml", "dataset.yaml")
_TESTS = ("val", "valid", "test")
_BEYOND = 1e-3  # boxes are cut off by rounding


def yolo_splits(root: Path) -> tuple[list[Path], list[Path]] | None:
    """The images of both splits; None where the folder has no `data.yaml`.

    Raises:
        RequestError: the file is malformed, or its folders are missing.
    """
    path = _description(root)
    if path is None:
        return None
    values = _content(path)
    test = next((values[name] for name in _TESTS if values.get(name)), None)
    if not values.get("train") or test is None:
        raise RequestError(f"{printable(path)} must name train and val")
    return _images(root, path, values["train"]), _images(root, path, test)


def read_yolo(root: Path, images: list[Path]) -> tuple[Path, Annotations, tuple[Path, ...]]:
    """The images' folder, their annotations as COCO has them, and the files that hold these.

    A line is a class and a box (center, width, height) or a class and a polygon, in shares of the image. Classes are
    numbered from 1. An image without a label file has no objects.

    Raises:
        RequestError: a line or an image is malformed; the message has the file and the line.
    """
    path = _description(root)
    assert path is not None
    names = _names(_content(path), path)
    entries: list[Entry] = []
    listed, files = [], [path]
    number = 0
    for image_id, file in enumerate(images, 1):
        width, height = _size(file)
        listed.append(
            Image(
                image_id, file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file), height, width
            )
        )
        labels = _label_file(file)
        if not os.path.lexists(labels):
            continue
        files.append(labels)
        for line_number, line in enumerate(read_lines(labels), 1):
            if not line.strip():
                continue
            number += 1
            entry = _entry(line, f"{printable(labels)}, line {line_number}", width, height, names)
            completed = {
                **entry,
                "id": number,
                "image_id": image_id,
                "iscrowd": 0,
                "given_id": f"{labels.name}:{line_number}",
            }
            entries.append(completed)
    categories = {label + 1: name for label, name in names.items()}
    objects = PackedObjects.of(entries, [image.id for image in listed])
    return root, Annotations(path, tuple(listed), objects, dict(sorted(categories.items()))), tuple(files)


def _description(root: Path) -> Path | None:
    return next((root / name for name in _FILES if os.path.lexists(root / name)), None)


def _content(path: Path) -> dict[str, Any]:
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise RequestError(f"{printable(path)} does not describe a data set")
    return values


def _names(values: dict[str, Any], path: Path) -> dict[int, str]:
    names = values.get("names")
    if isinstance(names, list):
        return {number: str(name) for number, name in enumerate(names)}
    if isinstance(names, dict) and all(isinstance(number, int) and number >= 0 for number in names):
        return {number: str(name) for number, name in names.items()}
    raise RequestError(f"{printable(path)} must have names: a list, or numbers with names")


def _images(root: Path, path: Path, places: Any) -> list[Path]:
    found: list[Path] = []
    for place in places if isinstance(places, list) else [places]:
        # Roboflow writes ../train/images, meant from a folder that its archive does not have
        if len(str(place)) > LONGEST_PATH:
            raise RequestError(f"{printable(path)} names {excerpt(str(place))}, which no file can be called")
        candidates = [root / str(place), root / str(place).removeprefix("../")]
        folder = next((candidate for candidate in candidates if candidate.exists()), None)
        if folder is None:
            raise RequestError(f"{printable(path)} names {printable(str(place))}, which is not in {printable(root)}")
        if folder.is_dir():
            found += image_files(folder)[0]
        else:
            found += [root / line.strip() for line in read_lines(folder, LONGEST_PATH) if line.strip()]
    return found


def _label_file(image: Path) -> Path:
    """`labels/a.txt` for `images/a.jpg`: the last folder named `images` on the way is `labels` instead."""
    parts = list(image.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _size(file: Path) -> tuple[int, int]:
    try:
        with open_regular(file) as content, Pillow.open(content) as picture:
            width, height = picture.size
            return width, height
    except UnidentifiedImageError:
        raise RequestError(f"the image {printable(file)} cannot be read: it is of no known image format") from None
    except Exception as error:  # Pillow raises many kinds
        problem = getattr(error, "strerror", None) or error
        raise RequestError(f"the image {printable(file)} cannot be read: {problem}") from None


def _entry(line: str, where: str, width: int, height: int, names: dict[int, str]) -> dict[str, Any]:
    words = line.split()
    try:
        label, values = int(words[0]), [float(word) for word in words[1:]]
    except ValueError:
        raise RequestError(f"{where}: expected a class and numbers, got {excerpt(line)}") from None
    if label not in names:
        raise RequestError(f"{where}: class {label} is not among the {len(names)} names")
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise RequestError(
            f"{where}: expected 4 numbers of a box, or 3 or more points of a polygon, got {len(values)} numbers"
        )
    if not all(math.isfinite(v) and -_BEYOND <= v <= 1 + _BEYOND for v in values):
        raise RequestError(f"{where}: numbers must be shares of the image, between 0 and 1")
    if len(values) == 4:
        center_x, center_y, w, h = values
        box = [(center_x - w / 2) * width, (center_y - h / 2) * height, w * width, h * height]
        return {"category_id": label + 1, "bbox": box, "segmentation": None, "area": box[2] * box[3]}
    polygon = [v * (height if n % 2 else width) for n, v in enumerate(values)]
    xs, ys = polygon[::2], polygon[1::2]
    box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    return {"category_id": label + 1, "bbox": box, "segmentation": [polygon], "area": _area(polygon)}


def _area(polygon: list[float]) -> float:
    """By the shoelace formula."""
    xs, ys = polygon[::2], polygon[1::2]
    return abs(sum(xs[n - 1] * ys[n] - xs[n] * ys[n - 1] for n in range(len(xs)))) / 2
