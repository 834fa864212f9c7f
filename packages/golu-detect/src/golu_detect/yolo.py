"""YOLO's layout: `data.yaml`, images in `images/`, and a text file of boxes or polygons for each in `labels/`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from golu_core.training import RequestError
from golu_core.training.data import image_files
from golu_core.training.messages import printable
from golu_core.training.storage import LONGEST_PATH, excerpt, open_regular, read_lines, read_yaml

from .annotations import Annotations, Image
from .packed import PackedObjects
from .segmentations import Entry
from .yolo_lines import Lines

_FILES = ("data.yaml", "data.yml", "dataset.yaml")
_TESTS = ("val", "valid", "test")


def yolo_splits(root: Path) -> tuple[list[Path], list[Path]] | None:
    """Return the images of both splits; None if the folder has no `data.yaml`.

    Raises:
        RequestError: The file is malformed, or its folders are missing.
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
    """Return the image folder, the annotations in COCO's format, and the annotation files.

    Classes are numbered from 1. An image without a label file has no objects.

    Raises:
        RequestError: A line or an image is malformed; the message includes the file and the line.
    """
    path = _description(root)
    assert path is not None
    content = _content(path)
    lines = Lines(_names(content, path), _keypoint_numbers(content, path))
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
            entry = lines.entry(line, f"{printable(labels)}, line {line_number}", width, height)
            completed = {
                **entry,
                "id": number,
                "image_id": image_id,
                "iscrowd": 0,
                "given_id": f"{labels.name}:{line_number}",
            }
            entries.append(completed)
    lines.check(path)
    categories = {label + 1: name for label, name in sorted(lines.names.items())}
    objects = PackedObjects.of(entries, [image.id for image in listed])
    return root, Annotations(path, tuple(listed), objects, categories, lines.notes()), tuple(files)


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
        # Roboflow writes ../train/images, relative to a folder that its archive does not have
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
    """Return `labels/a.txt` for `images/a.jpg`: the last folder named `images` in the path becomes `labels`."""
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
    except Exception as error:  # Pillow raises various exceptions
        problem = getattr(error, "strerror", None) or error
        raise RequestError(f"the image {printable(file)} cannot be read: {problem}") from None


def _keypoint_numbers(values: dict[str, Any], path: Path) -> int:
    """Return how many keypoint values follow each box, 0 if the data set has no keypoints."""
    shape = values.get("kpt_shape")
    if shape is None:
        return 0
    whole = isinstance(shape, list) and len(shape) == 2 and all(type(number) is int for number in shape)
    if not whole or shape[0] < 1 or shape[1] not in (2, 3):
        raise RequestError(
            f"{printable(path)} has kpt_shape {printable(str(shape))}: expected a number of keypoints, and 2 or 3"
        )
    return int(shape[0] * shape[1])
