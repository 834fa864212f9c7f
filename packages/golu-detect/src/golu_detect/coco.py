"""Annotation files in COCO's format: read, checked, filtered as published, and made into targets."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import torch
from pycocotools import mask as rle
from torch import Tensor

from golu_core.training.errors import RequestError

from .config import VOC_CATEGORIES

IGNORED = 255
_LARGEST_COCO_ID = 90


class Image(NamedTuple):
    """One image of an annotation file; sizes in pixels."""

    id: int
    file_name: str
    height: int
    width: int


@dataclass(frozen=True)
class Annotations:
    """The content of an annotation file.

    Attributes:
        path: of the file.
        images: in the order of the file.
        objects: the annotations of each image that has any, by image id.
        categories: names by id, in the order of the ids.
        degenerate: boxes without height or width, from which nothing is learned, as published.
    """

    path: Path
    images: tuple[Image, ...]
    objects: Mapping[int, Sequence[Mapping[str, Any]]]
    categories: Mapping[int, str]
    degenerate: int


def read_annotations(path: Path) -> Annotations:
    """Reads and checks an annotation file.

    Raises:
        RequestError: it is missing, or is not COCO's JSON; or an object's image, category or box is impossible.
    """
    try:
        with path.open("rb") as file:
            content = json.load(file)
    except FileNotFoundError:
        raise RequestError(f"there is no annotation file {path}") from None
    except (OSError, ValueError) as error:
        raise RequestError(f"{path} cannot be read as JSON: {error}") from None
    keys = ("images", "annotations", "categories")
    missing = [key for key in keys if not isinstance(content, dict) or not isinstance(content.get(key), list)]
    if missing:
        raise RequestError(f"{path} is not a COCO annotation file: it lacks {', '.join(missing)}")
    images = {}
    for entry in content["images"]:
        image = _image(entry, path)
        images[image.id] = image
    try:
        categories = {int(entry["id"]): str(entry["name"]) for entry in content["categories"]}
    except (KeyError, TypeError, ValueError) as error:
        raise RequestError(f"{path} has a category without {error}") from None
    objects: dict[int, list[dict[str, Any]]] = {}
    degenerate = 0
    for number, annotation in enumerate(content["annotations"], 1):
        problem = _problem(annotation, images, categories)
        if problem:
            raise RequestError(f"{path}: annotation {annotation.get('id', '?')} {problem}")
        degenerate += 0 in annotation["bbox"][2:]
        width, height = annotation["bbox"][2:]
        completed = {"id": number, "area": width * height, "iscrowd": 0, **annotation}
        objects.setdefault(annotation["image_id"], []).append(completed)
    return Annotations(path, tuple(images.values()), objects, dict(sorted(categories.items())), degenerate)


def _image(entry: Any, path: Path) -> Image:
    try:
        return Image(int(entry["id"]), str(entry["file_name"]), int(entry["height"]), int(entry["width"]))
    except (KeyError, TypeError, ValueError) as error:
        raise RequestError(f"{path} has an image without {error}") from None


def _problem(annotation: Any, images: Mapping[int, Image], categories: Mapping[int, str]) -> str | None:
    """What is impossible about an annotation; None if nothing is."""
    for key in ("image_id", "category_id", "bbox"):
        if key not in annotation:
            return f"has no {key}"
    image = images.get(annotation["image_id"])
    if image is None:
        return f"belongs to image {annotation['image_id']}, which is not in the file"
    if annotation["category_id"] not in categories:
        return f"has category {annotation['category_id']}, which is not in the file"
    box = annotation["bbox"]
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(v, (int, float)) and v == v for v in box):
        return f"has a box that is not four numbers: {box}"
    left, top, width, height = box
    if width < 0 or height < 0:
        return f"has a box of negative size: {box}"
    if left >= image.width or top >= image.height or left + width < 0 or top + height < 0:
        return f"has a box outside its image of {image.width} x {image.height}: {box}"
    return None


# --------------------------------------------------------------------------------------------- categories and filtering


def class_labels(annotations: Annotations, classes: str) -> dict[int, int]:
    """Class labels by category id; the background is 0.

    Args:
        annotations: of the training set.
        classes: as in `Data.classes`.

    Raises:
        RequestError: an id is not one of COCO's.
    """
    if classes == "voc":
        return {category: label for label, category in enumerate(VOC_CATEGORIES) if label > 0}
    if classes == "file":
        return {category: label for label, category in enumerate(annotations.categories, 1)}
    largest = max(annotations.categories, default=0)
    if largest > _LARGEST_COCO_ID:
        raise RequestError(
            f"{annotations.path} has category id {largest}, but COCO's end at {_LARGEST_COCO_ID}: "
            f"pass --data.classes file to number the file's categories anew"
        )
    return {category: category for category in annotations.categories}


def trainable_images(annotations: Annotations) -> list[Image]:
    """Images for training a detector: those with a box that is longer than 1 pixel both ways.

    As torchvision's reference filters them (`_coco_remove_images_without_annotations`).
    """
    return [
        image
        for image in annotations.images
        if any(min(entry["bbox"][2:]) > 1 for entry in annotations.objects.get(image.id, ()))
    ]


def covered_images(annotations: Annotations, labels: Mapping[int, int], fewest_pixels: int) -> list[Image]:
    """Images for training a segmenter: those whose objects of the classes cover more pixels than that in all."""
    kept = []
    for image in annotations.images:
        areas = [entry["area"] for entry in annotations.objects.get(image.id, ()) if entry["category_id"] in labels]
        if areas and sum(areas) > fewest_pixels:
            kept.append(image)
    return kept


def label_counts(annotations: Annotations, images: Sequence[Image]) -> Counter[int]:
    """How many objects of each category the images have."""
    return Counter(o["category_id"] for image in images for o in annotations.objects.get(image.id, ()))


# -------------------------------------------------------------------------------------------------------------- targets


def instance_target(
    objects: Sequence[Mapping[str, Any]], image: Image, labels: Mapping[int, int], with_masks: bool
) -> dict[str, Tensor]:
    """Boxes, labels and masks of an image's objects for training a detector; crowds and degenerate boxes left out.

    Returns:
        `boxes`: (N, 4) float32, left, top, right, bottom in pixels, within the image; `labels`: (N,) int64; `masks`:
        (N, H, W) uint8 if asked for.
    """
    single = [entry for entry in objects if not entry.get("iscrowd", 0) and entry["category_id"] in labels]
    boxes = torch.tensor([entry["bbox"] for entry in single], dtype=torch.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    boxes[:, 0::2].clamp_(0, image.width)
    boxes[:, 1::2].clamp_(0, image.height)
    kept = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(dim=1)
    target = {
        "boxes": boxes[kept],
        "labels": torch.tensor([labels[entry["category_id"]] for entry in single], dtype=torch.int64)[kept],
    }
    if with_masks:
        masks = [object_mask(entry, image) for entry, keep in zip(single, kept.tolist(), strict=True) if keep]
        empty = numpy.zeros((0, image.height, image.width), dtype=numpy.uint8)
        target["masks"] = torch.from_numpy(numpy.stack(masks) if masks else empty)
    return target


def segmentation_target(objects: Sequence[Mapping[str, Any]], image: Image, labels: Mapping[int, int]) -> Tensor:
    """Class of each pixel, (H, W) uint8: 0 is background, and 255 where objects overlap, crowds among them.

    As torchvision's reference has it (`ConvertCocoPolysToMask`).
    """
    target = numpy.zeros((image.height, image.width), dtype=numpy.uint8)
    covered = numpy.zeros((image.height, image.width), dtype=numpy.uint16)
    for entry in objects:
        if entry["category_id"] in labels:
            mask = object_mask(entry, image)
            numpy.maximum(target, mask * numpy.uint8(labels[entry["category_id"]]), out=target)
            covered += mask
    target[covered > 1] = IGNORED
    return torch.from_numpy(target)


def object_mask(entry: Mapping[str, Any], image: Image) -> numpy.ndarray[Any, Any]:
    """The mask of an object, (H, W) uint8, from polygons, run lengths or compressed RLE.

    Raises:
        RequestError: there is none, or it is malformed.
    """
    segmentation = entry.get("segmentation")
    try:
        if isinstance(segmentation, list):
            encoded = rle.merge(rle.frPyObjects(segmentation, image.height, image.width))
        elif isinstance(segmentation["counts"], list):  # type: ignore[index]
            encoded = rle.frPyObjects(segmentation, image.height, image.width)
        else:
            encoded = segmentation
        mask: numpy.ndarray[Any, Any] = rle.decode(encoded)
    except Exception as error:  # pycocotools has assertions, ValueError and TypeError
        raise RequestError(f"the segmentation of annotation {entry.get('id', '?')} is malformed: {error}") from None
    if mask.shape != (image.height, image.width):
        raise RequestError(
            f"the segmentation of annotation {entry.get('id', '?')} is of {mask.shape[1]} x {mask.shape[0]} pixels, "
            f"but its image of {image.width} x {image.height}"
        )
    return mask
