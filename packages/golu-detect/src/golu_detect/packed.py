"""Annotations in arrays, with outlines as JSON text: small, quick to open, and shared by all loader processes.

As Python objects, the 860,001 annotations of COCO's training set occupy 2.7 GB in each process, and a loader process
copies whatever it reads, because every access changes a reference count.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy
from numpy.typing import NDArray

from .segmentations import Entry


class _Object(msgspec.Struct, gc=False):
    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float
    iscrowd: int
    segmentation: msgspec.Raw


class _Picture(msgspec.Struct, gc=False):
    id: int
    file_name: str
    height: int
    width: int


class _Category(msgspec.Struct, gc=False):
    id: int
    name: str


class _File(msgspec.Struct, gc=False):
    images: list[_Picture]
    annotations: list[_Object]
    categories: list[_Category]


class PackedObjects(Mapping[int, list[Entry]]):
    """The annotations of each image, built on access.

    Args:
        image_ids: The ids of all images in the file.
        owners: (N,), the image of each object, counted from 0.
        given: The id of each object in the file.
        boxes: (N, 4), left, top, width, height.
        areas, categories, crowds: (N,), the fields of each object.
        outlines: The JSON text of each segmentation.

    Attributes:
        owners, boxes, areas, categories, crowds: Arrays ordered by image; objects of one image are in the order of the
            file.
    """

    def __init__(
        self,
        image_ids: Sequence[int],
        owners: NDArray[Any],
        given: Sequence[Any],
        boxes: NDArray[Any],
        areas: NDArray[Any],
        categories: NDArray[Any],
        crowds: NDArray[Any],
        outlines: Sequence[Any],
    ) -> None:
        order = numpy.argsort(owners, kind="stable")
        self.owners, self.boxes, self.areas = owners[order], boxes.reshape(-1, 4)[order], areas[order]
        self.categories, self.crowds = categories[order], crowds[order]
        self._numbers = order + 1
        numbered = all(type(name) is int and abs(name) < 2**62 for name in given)
        self._given: Any = numpy.array(given, numpy.int64)[order] if numbered else [given[k] for k in order]
        views = [memoryview(outlines[place]) for place in order.tolist()]
        self._ends = numpy.cumsum(numpy.fromiter((view.nbytes for view in views), numpy.int64, len(views)))
        self._outlines = b"".join(views)
        self._starts = numpy.searchsorted(self.owners, numpy.arange(len(image_ids) + 1))
        self._places = {image_id: place for place, image_id in enumerate(image_ids)}

    @classmethod
    def of(cls, entries: Sequence[Entry], image_ids: Sequence[int]) -> PackedObjects:
        """Pack annotations that are dictionaries with all fields."""
        places = {image_id: place for place, image_id in enumerate(image_ids)}
        count = len(entries)
        return cls(
            image_ids,
            numpy.fromiter((places[entry["image_id"]] for entry in entries), numpy.int64, count),
            [entry["given_id"] for entry in entries],
            numpy.array([entry["bbox"] for entry in entries], numpy.float64),
            numpy.fromiter((entry["area"] for entry in entries), numpy.float64, count),
            numpy.fromiter((entry["category_id"] for entry in entries), numpy.int64, count),
            numpy.fromiter((entry["iscrowd"] for entry in entries), numpy.int64, count),
            [json.dumps(entry.get("segmentation")).encode() for entry in entries],
        )

    def __len__(self) -> int:
        return int((numpy.diff(self._starts) > 0).sum())

    def __iter__(self) -> Iterator[int]:
        return (image_id for image_id in self._places if image_id in self)

    def __contains__(self, image_id: object) -> bool:
        place = self._places.get(image_id) if isinstance(image_id, int) else None
        return place is not None and bool(self._starts[place] < self._starts[place + 1])

    def __getitem__(self, image_id: int) -> list[Entry]:
        if image_id not in self:
            raise KeyError(image_id)
        place = self._places[image_id]
        return [self._entry(row, image_id) for row in range(int(self._starts[place]), int(self._starts[place + 1]))]

    def outline(self, row: int) -> bytes:
        """Return the JSON text of an object's segmentation."""
        start = int(self._ends[row - 1]) if row else 0
        return self._outlines[start : int(self._ends[row])]

    def given_id(self, row: int) -> Any:
        """Return the id of an object in the file."""
        given = self._given[row]
        return int(given) if isinstance(given, numpy.integer) else given

    def _entry(self, row: int, image_id: int) -> Entry:
        return {
            "id": int(self._numbers[row]),
            "given_id": self.given_id(row),
            "image_id": image_id,
            "category_id": int(self.categories[row]),
            "bbox": self.boxes[row].tolist(),
            "area": float(self.areas[row]),
            "iscrowd": int(self.crowds[row]),
            "segmentation": json.loads(self.outline(row)),
        }


def packed_content(text: str) -> tuple[list[_Picture], PackedObjects, dict[int, str]] | None:
    """Return images, objects, and categories of a text in COCO's own form; None if it differs or may be invalid.

    This function does not report problems: the file is then read by the reader that does.
    """
    try:
        found = msgspec.json.decode(text, type=_File)
    except ValueError:
        return None
    places = {image.id: place for place, image in enumerate(found.images)}
    categories = {category.id: category.name for category in found.categories}
    if len(places) < len(found.images) or len(categories) < len(found.categories):
        return None
    entries = found.annotations
    if any(entry.image_id not in places for entry in entries):
        return None
    count = len(entries)
    objects = PackedObjects(
        list(places),
        numpy.fromiter((places[entry.image_id] for entry in entries), numpy.int64, count),
        [entry.id for entry in entries],
        numpy.array([entry.bbox for entry in entries], numpy.float64),
        numpy.fromiter((entry.area for entry in entries), numpy.float64, count),
        numpy.fromiter((entry.category_id for entry in entries), numpy.int64, count),
        numpy.fromiter((entry.iscrowd for entry in entries), numpy.int64, count),
        [entry.segmentation for entry in entries],
    )
    sizes = numpy.array([(image.width, image.height) for image in found.images], numpy.float64).reshape(-1, 2)
    return (found.images, objects, categories) if _are_possible(objects, sizes, categories) else None


def _are_possible(objects: PackedObjects, sizes: NDArray[Any], categories: Mapping[int, str]) -> bool:
    """Return whether all boxes, areas, categories, and crowd flags are valid."""
    corners, extents, of = objects.boxes[:, :2], objects.boxes[:, 2:], sizes[objects.owners]
    return bool(
        (sizes >= 1).all()
        and numpy.isfinite(objects.boxes).all()
        and (extents >= 0).all()
        and (corners < of).all()
        and (corners + extents >= 0).all()
        and numpy.isfinite(objects.areas).all()
        and (objects.areas >= 0).all()
        and numpy.isin(objects.crowds, (0, 1)).all()
        and numpy.isin(objects.categories, list(categories)).all()
    )
