"""COCO's twelve metrics by pycocotools or faster-coco-eval, with the categories distributed over the processes."""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy
from numpy.typing import NDArray

from golu_core.training import Processes

from .scenes import Scenes

Detection = dict[str, Any]
# in the order of COCOeval.stats
_NUMBERS = (
    "map", "map50", "map75", "map_small", "map_medium", "map_large",
    "ar1", "ar10", "ar", "ar_small", "ar_medium", "ar_large",
)  # fmt: skip
_PREFIXES = {"bbox": "box", "segm": "mask"}


class CocoApi(NamedTuple):
    """Classes with the interface of pycocotools' COCO and COCOeval."""

    annotations: Any
    evaluation: Any


def coco_api() -> CocoApi:
    """Return faster-coco-eval if installed (the extra `fast`), otherwise pycocotools; the metrics are the same."""
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        return CocoApi(COCO, COCOeval)
    return CocoApi(COCO, COCOeval_faster)


class CategoryCurves(NamedTuple):
    """COCOeval's accumulated results for one category, which do not depend on the others."""

    precision: NDArray[numpy.float64]  # (thresholds, recalls, areas, detection limits)
    recall: NDArray[numpy.float64]  # (thresholds, areas, detection limits)


def coco_metrics(
    test: Scenes, found: Sequence[Detection], kind: str, processes: Processes | None = None
) -> dict[str, float]:
    """Compute COCO's metrics in %: `box_map` or `mask_map`, and its parts.

    Args:
        test: The test images and their objects.
        found: The detections of all processes.
        kind: `bbox` or `segm`.
        processes: The processes that share the categories; by default, this process evaluates all of them.

    Returns:
        The metrics. One is left out only if the test set has no objects for it, such as no large objects.
    """
    count, rank = (processes.count, processes.rank) if processes is not None else (1, 0)
    mine = category_shares(test, found, count)[rank]
    curves = category_curves(test, found, kind, mine) if mine else []
    if processes is not None:
        curves = processes.all_gather(curves)
    by_category = dict(curves)
    evaluation = coco_api().evaluation(iouType=kind)
    evaluation.params.catIds = sorted(by_category)
    in_order = [by_category[category] for category in evaluation.params.catIds]
    evaluation.eval = {
        "precision": numpy.stack([one.precision for one in in_order], axis=2),
        "recall": numpy.stack([one.recall for one in in_order], axis=1),
    }
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        evaluation.summarize()
    named = zip(_NUMBERS, evaluation.stats, strict=True)
    return {f"{_PREFIXES[kind]}_{name}": 100 * float(value) for name, value in named if value >= 0}


def category_shares(test: Scenes, found: Sequence[Detection], count: int) -> list[list[int]]:
    """Distribute category ids over `count` processes, largest first, each to the process with the least work so far."""
    sizes = Counter(dict.fromkeys(test.annotations.categories, 0))
    sizes.update(detection["category_id"] for detection in found)
    shares: list[list[int]] = [[] for _ in range(count)]
    loads = [0] * count
    for category, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        least = loads.index(min(loads))
        shares[least].append(category)
        loads[least] += size + len(test.images) // 8  # COCOeval visits every image for every category
    return shares


def category_curves(
    test: Scenes, found: Sequence[Detection], kind: str, categories: Collection[int]
) -> list[tuple[int, CategoryCurves]]:
    """Return COCOeval's accumulated results for some categories; see `coco_metrics`."""
    wanted = set(categories)
    # a result's area is that of its mask, as in COCO's own evaluation; if there is a box, pycocotools uses the box's
    results = [
        {name: value for name, value in detection.items() if kind == "bbox" or name != "bbox"}
        for detection in found
        if detection["category_id"] in wanted
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = _as_pycocotools(test, wanted)
        evaluation = coco_api().evaluation(truth, _loaded_results(truth, results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]
    return [
        (int(category), CategoryCurves(precision[:, :, row], recall[:, row]))
        for row, category in enumerate(evaluation.params.catIds)
    ]


def _loaded_results(truth: Any, results: list[Detection]) -> Any:
    if results:
        return truth.loadRes(results)
    nothing = coco_api().annotations()  # loadRes does not accept an empty list
    nothing.dataset = {**truth.dataset, "annotations": []}
    nothing.createIndex()
    return nothing


def _as_pycocotools(test: Scenes, categories: Collection[int]) -> Any:
    objects = test.annotations.objects
    truth = coco_api().annotations()
    truth.dataset = {
        "info": {},
        "images": [image._asdict() for image in test.images],
        "annotations": [
            entry for image in test.images for entry in objects.get(image.id, ()) if entry["category_id"] in categories
        ],
        "categories": [
            {"id": number, "name": name} for number, name in test.annotations.categories.items() if number in categories
        ],
    }
    truth.createIndex()
    return truth
