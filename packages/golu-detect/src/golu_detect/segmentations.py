"""Check segmentations in COCO's format before pycocotools uses them: malformed ones make it read foreign memory."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy
from pycocotools import mask as rle

from golu_core.training import RequestError

Entry = dict[str, Any]
"""An annotation in COCO's format."""
_FARTHEST = 1e6
_POLYGONS = msgspec.json.Decoder(list[list[float]])


def segmentation_problem(segmentation: Any, height: int, width: int) -> str | None:
    """Return what is wrong with an image's polygons, run lengths, or compressed run lengths; None if they are valid."""
    if isinstance(segmentation, list):
        return _polygons_problem(segmentation)
    if not isinstance(segmentation, Mapping):
        return (
            "has no segmentation" if segmentation is None else f"has a segmentation that is not one: {segmentation!r}"
        )
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not (isinstance(size, list | tuple) and len(size) == 2 and list(size) == [height, width]):
        return f"has a segmentation of size {size}, but its image has {[height, width]}"
    if isinstance(counts, list):
        runs: Sequence[int] = counts
        if not all(isinstance(run, int) and not isinstance(run, bool) and run >= 0 for run in counts):
            return "has run lengths that are not counts"
    elif isinstance(counts, str | bytes):
        decompressed = _decompressed(counts.encode("ascii", "replace") if isinstance(counts, str) else counts)
        if decompressed is None or min(decompressed, default=0) < 0:
            return "has compressed run lengths that cannot be read"
        runs = decompressed
    else:
        return "has a segmentation without counts"
    if sum(runs) != height * width:
        return f"has run lengths of {sum(runs):,} pixels, but its image has {height * width:,}"
    return None


def outline_problem(encoded: bytes, height: int, width: int) -> str | None:
    """Return the `segmentation_problem` of JSON text; valid polygons, the usual case, are decoded in one pass."""
    try:
        polygons = _POLYGONS.decode(encoded)
    except ValueError:
        polygons = []
    if polygons and all(
        len(polygon) >= 6 and len(polygon) % 2 == 0 and min(polygon) >= -_FARTHEST and max(polygon) <= _FARTHEST
        for polygon in polygons
    ):
        return None
    return segmentation_problem(json.loads(encoded), height, width)


def _polygons_problem(polygons: list[Any]) -> str | None:
    if not polygons:
        return "has no polygon"
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            return "has a polygon that is not a list of three or more pairs of numbers"
        for value in polygon:
            if not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > _FARTHEST:
                return f"has a polygon with the coordinate {value!r}"
    return None


def _decompressed(text: bytes) -> list[int] | None:
    """Decode COCO's compressed run lengths like `rleFrString` in pycocotools' C code; None if they are truncated."""
    runs: list[int] = []
    place = 0
    while place < len(text):
        value, shift, more = 0, 0, True
        while more:
            if place >= len(text) or not 48 <= text[place] < 112 or shift > 60:
                return None
            digit = text[place] - 48
            value |= (digit & 0x1F) << shift
            more = bool(digit & 0x20)
            place += 1
            shift += 5
            if not more and digit & 0x10:
                value |= -1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return runs


def object_mask(entry: Mapping[str, Any], height: int, width: int) -> numpy.ndarray[Any, Any]:
    """Return the mask of an object, (H, W) uint8, from polygons, run lengths, or compressed run lengths.

    Raises:
        RequestError: The segmentation is missing or malformed.
    """
    segmentation = entry.get("segmentation")
    problem = segmentation_problem(segmentation, height, width)
    if problem:
        raise RequestError(f"annotation {given_id(entry)} {problem}")
    if isinstance(segmentation, list):
        encoded = rle.merge(rle.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):  # type: ignore[index]
        encoded = rle.frPyObjects(segmentation, height, width)
    else:
        encoded = segmentation
    mask: numpy.ndarray[Any, Any] = rle.decode(encoded)
    return mask


def given_id(entry: Mapping[str, Any]) -> Any:
    """Return the id of an annotation in its file, before it was renumbered."""
    return entry.get("given_id", entry.get("id", "?"))
