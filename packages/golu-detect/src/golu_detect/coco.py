"""Convert COCO's annotations to training data: categories to classes, images to filtered lists, objects to targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

from golu_core.training import RequestError
from golu_core.training.messages import printable

from .annotations import Annotations, Image
from .config import VOC_CATEGORIES
from .segmentations import object_mask

IGNORED = 255
_THINNEST = 1e-3  # pixels: in float32, flipping or resizing can collapse thinner boxes, which torch refuses


# --------------------------------------------------------------------------------------------- categories and filtering


def class_labels(annotations: Annotations, classes: str) -> dict[int, int]:
    """Return class labels by category id; the background is 0.

    Args:
        annotations: The training annotations.
        classes: The numbering of classes, as in `Data.classes`.

    Raises:
        RequestError: `classes` is `coco`, and an id is not one of COCO's or has a different name in COCO.
    """
    if classes == "file":
        return {category: label for label, category in enumerate(annotations.categories, 1)}
    _check_coco_ids(annotations)
    if classes == "voc":
        return {category: label for label, category in enumerate(VOC_CATEGORIES) if label > 0}
    return {category: category for category in annotations.categories}


def _check_coco_ids(annotations: Annotations) -> None:
    names = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    for category, name in annotations.categories.items():
        if category == 0:
            problem = "category id 0, and 0 is the background"
        elif not 0 < category < len(names) or names[category] == "N/A":
            problem = f"category id {category}, {name!r}, and COCO has no such id"
        elif names[category] != name.strip().lower():
            problem = f"category {category} is {name!r}, and in COCO it is {names[category]!r}"
        else:
            continue
        raise RequestError(
            f"{printable(annotations.path)}: {problem}; pass --data.classes file to use the file's own categories"
        )


def trainable_images(annotations: Annotations) -> list[Image]:
    """Return the images for training a detector: those with a box that is longer than 1 pixel in both directions.

    The filter is that of torchvision's reference (`_coco_remove_images_without_annotations`).
    """
    objects = annotations.objects
    kept = numpy.zeros(len(annotations.images), dtype=bool)
    kept[objects.owners[objects.boxes[:, 2:].min(axis=1, initial=numpy.inf) > 1]] = True
    return [image for image, keep in zip(annotations.images, kept.tolist(), strict=True) if keep]


def covered_images(annotations: Annotations, labels: Mapping[int, int], fewest_pixels: int) -> list[Image]:
    """Return the images for training a segmenter: those whose objects cover more than `fewest_pixels` pixels."""
    objects = annotations.objects
    known = numpy.isin(objects.categories, list(labels))
    owners, areas = objects.owners[known], objects.areas[known]
    covered = numpy.bincount(owners, weights=areas, minlength=len(annotations.images)) > fewest_pixels
    covered &= numpy.bincount(owners, minlength=len(annotations.images)) > 0
    return [image for image, keep in zip(annotations.images, covered.tolist(), strict=True) if keep]


def object_count(annotations: Annotations, images: Sequence[Image]) -> int:
    """Return the number of objects in the images."""
    counts = numpy.bincount(annotations.objects.owners, minlength=len(annotations.images)).tolist()
    kept = {image.id for image in images}
    return sum(count for image, count in zip(annotations.images, counts, strict=True) if image.id in kept)


# -------------------------------------------------------------------------------------------------------------- targets


def learned_objects(
    annotations: Annotations, images: Sequence[Image], labels: Mapping[int, int], kind: str
) -> NDArray[numpy.bool_]:
    """Return a mask of the objects that are part of the images' targets, (N,) bool, as selected by the functions below.

    Args:
        annotations: The split's annotations.
        images: The images in use.
        labels: Class labels by category id.
        kind: `boxes`, `masks` or `segmentation`.
    """
    objects = annotations.objects
    used = {image.id for image in images}
    is_used = numpy.array([image.id in used for image in annotations.images], bool)
    chosen = is_used[objects.owners] & numpy.isin(objects.categories, list(labels))
    if kind == "segmentation":
        return chosen
    sizes = numpy.array([(image.width, image.height) for image in annotations.images], numpy.float32).reshape(-1, 2)
    boxes = objects.boxes.astype(numpy.float32)
    ends = (boxes[:, :2] + boxes[:, 2:]).clip(0, sizes[objects.owners])
    starts = boxes[:, :2].clip(0, sizes[objects.owners])
    kept: NDArray[numpy.bool_] = chosen & (objects.crowds == 0) & (ends - starts >= _THINNEST).all(axis=1)
    return kept


def instance_target(
    objects: Sequence[Mapping[str, Any]], image: Image, labels: Mapping[int, int], with_masks: bool
) -> dict[str, Tensor]:
    """Return the boxes, labels, and masks of an image's objects, without crowds and degenerate boxes.

    Returns:
        `boxes`: (N, 4) float32, left, top, right, bottom in pixels, within the image; `labels`: (N,) int64; `masks`:
        (N, H, W) uint8 if requested.
    """
    single = [entry for entry in objects if not entry.get("iscrowd", 0) and entry["category_id"] in labels]
    boxes = torch.tensor([entry["bbox"] for entry in single], dtype=torch.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    boxes[:, 0::2].clamp_(0, image.width)
    boxes[:, 1::2].clamp_(0, image.height)
    kept = ((boxes[:, 2:] - boxes[:, :2]) >= _THINNEST).all(dim=1)
    target = {
        "boxes": boxes[kept],
        "labels": torch.tensor([labels[entry["category_id"]] for entry in single], dtype=torch.int64)[kept],
    }
    if with_masks:
        masks = [
            object_mask(entry, image.height, image.width)
            for entry, keep in zip(single, kept.tolist(), strict=True)
            if keep
        ]
        empty = numpy.zeros((0, image.height, image.width), dtype=numpy.uint8)
        target["masks"] = torch.from_numpy(numpy.stack(masks) if masks else empty)
    return target


def segmentation_target(objects: Sequence[Mapping[str, Any]], image: Image, labels: Mapping[int, int]) -> Tensor:
    """Return the class of each pixel, (H, W) uint8: 0 is background, 255 marks overlapping objects, including crowds.

    This is the target of torchvision's reference (`ConvertCocoPolysToMask`).
    """
    target = numpy.zeros((image.height, image.width), dtype=numpy.uint8)
    covered = numpy.zeros((image.height, image.width), dtype=numpy.uint16)
    for entry in objects:
        if entry["category_id"] in labels:
            mask = object_mask(entry, image.height, image.width)
            numpy.maximum(target, mask * numpy.uint8(labels[entry["category_id"]]), out=target)
            covered += mask
    target[covered > 1] = IGNORED
    return torch.from_numpy(target)
