"""Read and check annotation files in COCO's format; invalid entries are refused with a message that names them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from golu_core.training import RequestError
from golu_core.training.messages import printable
from golu_core.training.storage import excerpt, parsed_json, read_text

from .packed import PackedObjects, packed_content
from .segmentations import Entry


class Image(NamedTuple):
    """One image of an annotation file; sizes in pixels."""

    id: int
    file_name: str
    height: int
    width: int


@dataclass(frozen=True)
class Annotations:
    """The contents of an annotation file.

    Attributes:
        path: The file.
        images: The images, in the order of the file.
        objects: The annotations of each image with annotations, by image id. They are renumbered from 1, because
            pycocotools treats id 0 as unmatched and equal ids as one object; `given_id` is the id in the file.
        categories: Category names by id, in the order of the ids.
        notes: Notes on values that were corrected while reading, as sentences.
    """

    path: Path
    images: tuple[Image, ...]
    objects: PackedObjects
    categories: Mapping[int, str]
    notes: tuple[str, ...] = ()

    def of_images(self, images: Sequence[Image]) -> Annotations:
        """Return the annotations of some of the images, with their numbers unchanged."""
        entries = [entry for image in images for entry in self.objects.get(image.id, [])]
        objects = PackedObjects.of(entries, [image.id for image in images])
        return dataclasses.replace(self, images=tuple(images), objects=objects)

    @property
    def degenerate(self) -> int:
        """The number of boxes without height or width, which are ignored in training, as in the published code."""
        return int((self.objects.boxes[:, 2:] == 0).any(axis=1).sum())


def read_annotations(path: Path) -> Annotations:
    """Read and check an annotation file.

    Raises:
        RequestError: The file is missing or is not COCO's JSON, or an id, image, category, or box is invalid.
    """
    text = read_text(path, most=None, missing=f"there is no annotation file {printable(path)}")
    packed = packed_content(text)
    if packed is not None:
        pictures, packed_objects, names = packed
        listed = tuple(Image(p.id, p.file_name.replace("\\", "/"), p.height, p.width) for p in pictures)
        return Annotations(path, listed, packed_objects, _in_order(names))
    return _read_patiently(text, path)


def _read_patiently(text: str, path: Path) -> Annotations:
    """Read a file entry by entry, fill in optional fields, and report invalid entries."""
    content = _content(text, path)
    images: dict[int, Image] = {}
    for entry in content["images"]:
        image = _image(entry, path)
        if image.id in images:
            raise RequestError(
                f"{printable(path)} has two images with id {image.id}, {printable(images[image.id].file_name)} and "
                f"{printable(image.file_name)}"
            )
        images[image.id] = image
    categories = _categories(content["categories"], path)
    entries: list[Entry] = []
    for number, annotation in enumerate(content["annotations"], 1):
        completed = _completed(annotation, number, images, categories)
        if isinstance(completed, str):
            given = annotation.get("id", "?") if isinstance(annotation, dict) else f"number {number}"
            raise RequestError(f"{printable(path)}: annotation {given} {completed}")
        entries.append(completed)
    return Annotations(path, tuple(images.values()), PackedObjects.of(entries, list(images)), _in_order(categories))


def _in_order(categories: Mapping[int, str]) -> dict[int, str]:
    return dict(sorted(categories.items()))


def _content(text: str, path: Path) -> dict[str, Any]:
    content = parsed_json(text, path)
    keys = ("images", "annotations", "categories")
    missing = [key for key in keys if not isinstance(content, dict) or not isinstance(content.get(key), list)]
    if missing:
        raise RequestError(f"{printable(path)} is not a COCO annotation file: it lacks {', '.join(missing)}")
    found: dict[str, Any] = content
    return found


def _whole_number(value: Any) -> int | None:
    """Return an id as an integer, even if it is quoted; None if it is not an integer."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return int(value) if isinstance(value, str) and value.strip().lstrip("-").isdecimal() else None


def _image(entry: Any, path: Path) -> Image:
    if not isinstance(entry, dict):
        raise RequestError(f"{printable(path)} has an image that is not an object: {excerpt(repr(entry))}")
    lacking = [key for key in ("id", "file_name", "height", "width") if entry.get(key) is None]
    if lacking:
        raise RequestError(f"{printable(path)} has an image without {lacking[0]}: {printable(str(entry)[:200])}")
    number = _whole_number(entry["id"])
    if number is None:
        raise RequestError(
            f"{printable(path)} has the image id {entry['id']!r}: COCO's results need ids that are whole numbers"
        )
    height, width = _whole_number(entry["height"]), _whole_number(entry["width"])
    if height is None or width is None or height < 1 or width < 1:
        raise RequestError(f"{printable(path)}: image {number} has the size {entry['width']!r} x {entry['height']!r}")
    return Image(number, str(entry["file_name"]).replace("\\", "/"), height, width)


def _categories(entries: list[Any], path: Path) -> dict[int, str]:
    found: dict[int, str] = {}
    for entry in entries:
        if not isinstance(entry, dict) or entry.get("id") is None or entry.get("name") is None:
            raise RequestError(f"{printable(path)} has a category without id or name: {printable(str(entry)[:200])}")
        number = _whole_number(entry["id"])
        if number is None:
            raise RequestError(f"{printable(path)} has the category id {entry['id']!r}: ids must be whole numbers")
        if number in found:
            raise RequestError(
                f"{printable(path)} has two categories with id {number}, {found[number]} and {entry['name']}"
            )
        found[number] = str(entry["name"])
    return found


def _completed(
    annotation: Any, number: int, images: Mapping[int, Image], categories: Mapping[int, str]
) -> dict[str, Any] | str:
    """Return the annotation with its optional fields and a new number, or a description of what is wrong with it."""
    if not isinstance(annotation, dict):
        return f"is not an object: {excerpt(repr(annotation))}"
    for key in ("image_id", "category_id", "bbox"):
        if annotation.get(key) is None:
            return f"has no {key}"
    image = images.get(_number_or(annotation["image_id"]))
    if image is None:
        return f"belongs to image {annotation['image_id']}, which is not in the file"
    category = _number_or(annotation["category_id"])
    if category not in categories:
        return f"has category {annotation['category_id']}, which is not in the file"
    box = annotation["bbox"]
    if not isinstance(box, list) or len(box) != 4 or not all(_is_finite(value) for value in box):
        return f"has a box that is not four numbers: {excerpt(str(box))}"
    left, top, width, height = box
    if width < 0 or height < 0:
        return f"has a box of negative size: {box}"
    if left >= image.width or top >= image.height or left + width < 0 or top + height < 0:
        return f"has a box outside its image of {image.width} x {image.height}: {box}"
    area = annotation.get("area")
    if area is None:
        area = width * height
    if not _is_finite(area) or area < 0:
        return f"has an area that is not a number: {area!r}"
    crowd = annotation.get("iscrowd") or 0
    if crowd not in (0, 1):
        return f"has iscrowd {crowd!r}, which must be 0 or 1"
    own = {"image_id": image.id, "category_id": category, "area": area, "iscrowd": int(crowd)}
    return {**annotation, **own, "id": number, "given_id": annotation.get("id", f"number {number}")}


def _number_or(value: Any) -> int:
    """Return an id as an integer, or a value that never occurs in files if it is not one."""
    number = _whole_number(value)
    return -(2**62) if number is None else number


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
