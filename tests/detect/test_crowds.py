"""Which detections count in the confusions, against pycocotools' own flags of each detection."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from golu_detect.details import matched_detections

SIDE = 100
CLASSES = (1, 2, 3)


def drawn(random: numpy.random.Generator, images: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Objects, a third of them crowds, and detections near them, in them and anywhere."""
    entries, found = [], []
    for image in range(1, images + 1):
        for _ in range(int(random.integers(0, 6))):
            crowd = random.random() < 0.33
            size = random.uniform(40, 90, 2) if crowd else random.uniform(8, 40, 2)
            corner = random.uniform(0, SIDE - size)
            entry = {"id": len(entries) + 1, "image_id": image, "category_id": int(random.choice(CLASSES))}
            entry |= {"bbox": [*map(float, corner), *map(float, size)], "area": float(size.prod())}
            entries.append({**entry, "iscrowd": int(crowd)})
            for _ in range(int(random.integers(0, 4))):
                inside = crowd and random.random() < 0.7
                part = random.uniform(5, 20, 2) if inside else size * random.uniform(0.8, 1.2, 2)
                at = corner + random.uniform(0, 1, 2) * (size - part) if inside else corner + random.normal(0, 4, 2)
                same = random.random() < 0.7
                category = entry["category_id"] if same else int(random.choice(CLASSES))
                found.append({"image_id": image, "category_id": category, "bbox": [*map(float, at), *map(float, part)]})
    scores = random.permutation(len(found)) / len(found)
    return entries, [{**one, "score": float(score)} for one, score in zip(found, scores, strict=True)]


def pycocotools_flags(entries: list[Any], found: list[Any], images: int) -> dict[tuple[int, float], tuple[bool, int]]:
    """For each detection, by image and score: whether it is ignored, and the object that it is matched with."""
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": n, "width": SIDE, "height": SIDE} for n in range(1, images + 1)],
        "annotations": [dict(entry) for entry in entries],
        "categories": [{"id": n, "name": str(n)} for n in CLASSES],
    }
    flags = {}
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes([dict(one) for one in found]), "bbox")
        evaluation.params.iouThrs = numpy.array([0.5])
        evaluation.evaluate()
    for one in evaluation.evalImgs:
        if one is not None and one["aRng"] == evaluation.params.areaRng[0]:
            rows = zip(one["dtScores"], one["dtIgnore"][0], one["dtMatches"][0], strict=True)
            flags.update({(one["image_id"], score): (bool(ignore), int(match)) for score, ignore, match in rows})
    return flags


@pytest.mark.parametrize("seed", range(4))
def test_crowds_count_as_pycocotools_counts_them(seed):
    images = 120
    entries, found = drawn(numpy.random.default_rng(seed), images)
    flags = pycocotools_flags(entries, found, images)
    counts = numpy.zeros(3, int)
    for image in range(1, images + 1):
        here = [entry for entry in entries if entry["image_id"] == image]
        shown = sorted((one for one in found if one["image_id"] == image), key=lambda one: -one["score"])
        matched, ignored, _ = matched_detections(shown, here)
        for one, place, ignore in zip(shown, matched, ignored, strict=True):
            theirs_ignored, theirs = flags[image, one["score"]]
            assert ignore == theirs_ignored
            is_hit = place is not None and here[place]["category_id"] == one["category_id"]
            assert is_hit == (theirs > 0 and not theirs_ignored)
            if is_hit:
                assert here[place]["id"] == theirs
            counts += ignore, is_hit, not ignore and not is_hit
        taken = [place for place in matched if place is not None]
        assert len(taken) == len(set(taken)) and not any(here[place]["iscrowd"] for place in taken)
    assert (counts > 40).all()


def test_a_detection_of_another_class_is_a_confusion_and_takes_no_hit():
    entry = {"category_id": 1, "bbox": [10, 10, 20, 20], "iscrowd": 0}
    sure, right = ({"category_id": c, "bbox": [10, 10, 20, 20], "score": s} for c, s in ((2, 0.9), (1, 0.6)))
    assert matched_detections([sure], [entry])[0] == [0]
    assert matched_detections([sure, right], [entry])[0] == [None, 0]
    assert matched_detections([sure], []) == ([None], [False], [0.0])
