"""Details of a detector's or segmenter's test metrics: each class, confusions, and mistakes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import torch
from numpy.typing import NDArray
from pycocotools import mask as rle
from torch import Tensor
from torchvision.utils import draw_bounding_boxes

from golu_core.training.figures import Curve, write_confusion, write_curves, write_table

from .coco import IGNORED
from .coco_metrics import CategoryCurves, Detection, category_curves
from .data import DetectData
from .segmentations import Entry

_SAME = 0.5  # minimum IoU of a box with its object
_SHOWN = 0.5  # minimum score of a detection in the confusions, as in `predict`
_WORST = 12
_NOTHING, _FOUND_ALREADY = "nothing", "found already"


# ----------------------------------------------------------------------------------------------------------- detection


class _Judged(NamedTuple):
    """A detection, compared with the objects in its image.

    Attributes:
        image: Index of the image in the test set.
        found: The detection.
        right: Category of the matched object; None if there is none.
        overlap: The largest IoU with any object.
    """

    image: int
    found: Detection
    right: int | None
    overlap: float


def write_detection_details(folder: Path, found: Sequence[Detection], data: DetectData, with_masks: bool) -> None:
    """Write the details of a detector's metrics.

    Args:
        folder: The folder for `classes.csv`, `confusion.csv` and `.png`, `confusions.csv`, `precision-recall.csv` and
            `.png`, and, if any detections match no object of their class, `mistakes.csv` and `.png`.
        found: All detections in the test set, in COCO's format.
        data: The data set of the detections.
        with_masks: Also report the average precision of masks.
    """
    categories = data.test.annotations.categories
    kinds = {"box": "bbox"} | ({"mask": "segm"} if with_masks else {})
    curves = {name: dict(category_curves(data.test, found, kind, list(categories))) for name, kind in kinds.items()}
    objects = _object_counts(data)
    rows = []
    for category, name in categories.items():
        row: dict[str, Any] = {"class": name, "objects": objects.get(category, 0)}
        for kind, of in curves.items():
            row |= {f"{kind} {key}": value for key, value in _precisions(of[category]).items()}
        rows.append(row)
    write_table(folder / "classes.csv", rows)
    judged, missed = _judged(found, data)
    write_confusion(folder, _confusions(judged, missed, data), [*categories.values(), _NOTHING], "objects")
    drawn = {name: _curve(curves["box"][category]) for category, name in categories.items() if objects.get(category)}
    write_curves(folder, drawn, "Boxes at an IoU of 0.5")
    wrong = [one for one in judged if one.right != one.found["category_id"]]
    wrong.sort(key=lambda one: (-one.found["score"], one.image, one.found["bbox"]))
    if wrong:
        write_table(folder / "mistakes.csv", [_of_mistake(one, data) for one in wrong])
        _draw_mistakes(folder / "mistakes.png", wrong, data)


def _object_counts(data: DetectData) -> dict[int, int]:
    """Return the number of objects per category in the test set, without crowds."""
    counts: dict[int, int] = defaultdict(int)
    for image in data.test.images:
        for entry in data.test.annotations.objects.get(image.id, ()):
            counts[entry["category_id"]] += not entry.get("iscrowd", 0)
    return counts


def _precisions(curves: CategoryCurves) -> dict[str, float | str]:
    """Return a category's average precisions and recall in %, empty if the category has no objects."""
    precision, recall = curves.precision[:, :, 0, -1], curves.recall[:, 0, -1]
    parts = {"AP (%)": precision, "AP50 (%)": precision[:1], "AP75 (%)": precision[5:6], "AR (%)": recall}
    return {name: 100 * float(part.mean()) if (part > -1).all() else "" for name, part in parts.items()}


def _curve(curves: CategoryCurves) -> Curve:
    """Return COCO's 101 points at an IoU of 0.5."""
    precision = curves.precision[0, :, 0, -1]
    points = len(precision)
    unknown, widths = numpy.full(points, numpy.nan), numpy.full(points, 1 / points)
    return Curve(numpy.linspace(0, 1, points), precision, unknown, float(precision.mean()), widths)


def _judged(found: Sequence[Detection], data: DetectData) -> tuple[list[_Judged], list[int]]:
    """Return each detection with its matched object, and the categories of the unmatched objects.

    Detections above the display threshold are matched as in COCO's evaluation at an IoU of 0.5, so the true positives
    are those of the average precision. The others, most confident first, are confused with the unmatched object of
    another class that they overlap most.
    """
    by_image: dict[int, list[Detection]] = defaultdict(list)
    for detection in found:
        if detection["score"] >= _SHOWN:
            by_image[detection["image_id"]].append(detection)
    judged: list[_Judged] = []
    missed: list[int] = []
    for number, image in enumerate(data.test.images):
        entries = list(data.test.annotations.objects.get(image.id, ()))
        detections = sorted(by_image[image.id], key=lambda d: -d["score"])
        matched, ignored, overlaps = matched_detections(detections, entries)
        for detection, entry, ignore, overlap in zip(detections, matched, ignored, overlaps, strict=True):
            if not ignore:
                right = None if entry is None else entries[entry]["category_id"]
                judged.append(_Judged(number, detection, right, overlap))
        missed += [
            entry["category_id"]
            for place, entry in enumerate(entries)
            if place not in matched and not entry.get("iscrowd", 0)
        ]
    return judged, missed


def matched_detections(
    detections: Sequence[Detection], entries: Sequence[Entry]
) -> tuple[list[int | None], list[bool], list[float]]:
    """Match an image's detections with its objects.

    Args:
        detections: The image's detections, in descending order of their scores.
        entries: The image's annotations.

    Returns:
        For each detection the index of its object, or None; whether it lies in a crowd of its class, in which case it
        is ignored; and its largest IoU with an object that is not a crowd.
    """
    crowd = [bool(entry.get("iscrowd", 0)) for entry in entries]
    matched: list[int | None] = [None] * len(detections)
    if not detections or not entries:
        return matched, [False] * len(detections), [0.0] * len(detections)
    boxes = [numpy.array([one["bbox"] for one in ones], numpy.float64) for ones in (detections, entries)]
    overlaps = rle.iou(*boxes, crowd)  # for a crowd, the fraction of the detection's own area
    same_class = numpy.array([[e["category_id"] == d["category_id"] for e in entries] for d in detections])
    free = ~numpy.array(crowd)
    in_crowd = (same_class & ~free & (overlaps >= _SAME)).any(axis=1)
    for is_allowed in (same_class, ~same_class & ~in_crowd[:, None]):
        for row, allowed in enumerate(is_allowed):
            candidates = numpy.where(allowed & free, overlaps[row], 0.0)
            best = len(entries) - 1 - int(candidates[::-1].argmax())  # COCO chooses the last of equal ones
            if matched[row] is None and candidates[best] >= _SAME:
                matched[row] = best
                free[best] = False
    ignored = [bool(inside) and place is None for inside, place in zip(in_crowd, matched, strict=True)]
    single = numpy.where(crowd, 0.0, overlaps)
    return matched, ignored, [float(value) for value in single.max(axis=1)]


def _corners(entries: Sequence[Any]) -> Tensor:
    """Return the boxes of COCO entries as corners, (N, 4) float32."""
    boxes = torch.tensor([entry["bbox"] for entry in entries], dtype=torch.float32).reshape(-1, 4)
    return torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)


def _confusions(judged: Sequence[_Judged], missed: Sequence[int], data: DetectData) -> NDArray[numpy.int64]:
    """Count true and predicted classes; the last row has unmatched detections, the last column missed objects."""
    rows = {category: row for row, category in enumerate(data.test.annotations.categories)}
    counts = numpy.zeros((len(rows) + 1, len(rows) + 1), dtype=numpy.int64)
    for one in judged:
        counts[len(rows) if one.right is None else rows[one.right], rows[one.found["category_id"]]] += 1
    for category in missed:
        counts[rows[category], len(rows)] += 1
    return counts


def _of_mistake(one: _Judged, data: DetectData) -> dict[str, object]:
    categories = data.test.annotations.categories
    left, top, width, height = one.found["bbox"]
    return {
        "image": data.test.images[one.image].file_name,
        "class": categories[one.found["category_id"]],
        "score": one.found["score"],
        "object there": _what_is_there(one, data),
        "largest IoU with an object": one.overlap,
        "left": left,
        "top": top,
        "width": width,
        "height": height,
    }


def _what_is_there(one: _Judged, data: DetectData) -> str:
    if one.right is not None:
        return data.test.annotations.categories[one.right]
    return _FOUND_ALREADY if one.overlap >= _SAME else _NOTHING


def _draw_mistakes(path: Path, wrong: Sequence[_Judged], data: DetectData) -> None:
    """Draw the most confident mistakes, each in its image."""
    from golu_core.training.figures import TitledImage, image_grid, save_png

    categories = data.test.annotations.categories
    drawn = []
    for one in wrong[:_WORST]:
        pixels, _ = data.test.scene(one.image)
        boxed = draw_bounding_boxes(pixels, _corners([one.found]), colors="red", width=max(1, pixels.shape[-1] // 150))
        name, score = categories[one.found["category_id"]], one.found["score"]
        drawn.append(TitledImage(boxed, f"{name} {score:.2f}\nis {_what_is_there(one, data)}"))
    save_png(image_grid(drawn, 4, f"The most confident of {len(wrong):,} mistakes", 2.6), path, dpi=100)


# -------------------------------------------------------------------------------------------------------- segmentation


class _SeenScene(NamedTuple):
    """A segmenter's prediction for one test image.

    Attributes:
        right: Fraction of its pixels that are correct.
        sample: Index of the image in the test set.
        counts: (classes, classes) int64, number of pixels by true and predicted class.
        chosen: (H, W) uint8, the predicted classes; None for all but the worst images.
    """

    right: float
    sample: int
    counts: NDArray[numpy.int64]
    chosen: NDArray[numpy.uint8] | None


class SeenSegments:
    """Collect a segmenter's predictions for the test images of this process."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.images: list[_SeenScene] = []

    def add(self, samples: Tensor, positions: Tensor, targets: Tensor, chosen: Tensor) -> None:
        """Add a batch.

        Args:
            samples: (N,) int64, the indices of the images in the test set.
            positions: (N,) int64, -1 for images that only fill the batch.
            targets: (N, H, W) int64, 255 for ignored pixels.
            chosen: (N, H, W) int64, the predicted classes.
        """
        for sample, position, target, choice in zip(samples.tolist(), positions.tolist(), targets, chosen, strict=True):
            valid = target != IGNORED
            if position < 0 or not valid.any():
                continue
            pairs = torch.bincount(target[valid] * self.classes + choice[valid], minlength=self.classes**2)
            counts = pairs.reshape(self.classes, self.classes).cpu().numpy()
            right = float(counts.trace() / counts.sum())
            self.images.append(_SeenScene(right, sample, counts, choice.to(torch.uint8).cpu().numpy()))
        self.images.sort(key=lambda image: image[:2])
        self.images[_WORST:] = [image._replace(chosen=None) for image in self.images[_WORST:]]


def write_segmentation_details(folder: Path, images: Sequence[_SeenScene], data: DetectData) -> None:
    """Write the details of a segmenter's metrics.

    Args:
        folder: The folder for `classes.csv`, `confusion.csv` and `.png`, `confusions.csv`, and `mistakes.csv` and
            `.png`, the images with the smallest fraction of correct pixels.
        images: The predictions for all test images.
        data: The data set of the images.
    """
    whole = numpy.sum([image.counts for image in images], axis=0)
    # COCO's ids have gaps, but the network has an output for each number
    kept = [n for n in range(data.classes) if n == 0 or n in data.names or whole[n].any() or whole[:, n].any()]
    names = ["background" if n == 0 else data.names.get(n, f"unused output {n}") for n in kept]
    counts = whole[numpy.ix_(kept, kept)]
    rows = []
    for label, name in enumerate(names):
        hits, pixels, chosen = int(counts[label, label]), int(counts[label].sum()), int(counts[:, label].sum())
        union = pixels + chosen - hits
        rows.append(
            {
                "class": name,
                "pixels": pixels,
                "IoU (%)": 100 * hits / union if union else "",
                "accuracy (%)": 100 * hits / pixels if pixels else "",
                "precision (%)": 100 * hits / chosen if chosen else "",
            }
        )
    write_table(folder / "classes.csv", rows)
    write_confusion(folder, counts, names, "pixels")
    worst = sorted(images, key=lambda image: image[:2])
    table = [
        {"image": data.test.images[image.sample].file_name, "right pixels (%)": 100 * image.right} for image in worst
    ]
    write_table(folder / "mistakes.csv", table)
    from golu_core.training.figures import TitledImage, image_grid, save_png

    drawn = []
    for image in worst[: _WORST // 3]:
        picture, target = data.test.scene(image.sample)
        assert image.chosen is not None
        name = Path(data.test.images[image.sample].file_name).name
        drawn.append(TitledImage(picture, name))
        drawn.append(TitledImage(_colored(target["segmentation"].numpy()), "right"))
        drawn.append(TitledImage(_colored(image.chosen), f"chosen, {100 * image.right:.0f}% right"))
    figure = image_grid(drawn, 3, "The images with the fewest right pixels", 2.6)
    save_png(figure, folder / "mistakes.png", dpi=100)


def _colored(labels: NDArray[Any]) -> Tensor:
    """Return labels (H, W) as a color image, (3, H, W) uint8; ignored pixels are white."""
    from matplotlib import colormaps

    palette = (numpy.asarray(colormaps["tab20"](numpy.arange(256) % 20))[:, :3] * 255).astype(numpy.uint8)
    palette[0], palette[IGNORED] = 0, 255
    return torch.from_numpy(palette[labels]).permute(2, 0, 1)
