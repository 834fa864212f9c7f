"""The area under each line of a precision-recall picture is the average precision in the picture's legend."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
from matplotlib.figure import Figure
from sklearn.metrics import average_precision_score

from golu_core.training.figures.class_details import Curve, write_curves
from golu_detect.coco_metrics import category_curves
from golu_detect.details import _curve as curve_of_coco
from golu_vision.details import _curve as curve_of_scikit_learn


def of_scikit_learn(random: numpy.random.Generator, classes: int) -> dict[str, Curve]:
    found = {}
    for number in range(classes):
        right = random.random(int(random.integers(5, 300))) < 0.3
        right[0] = True
        scores = (random.normal(0, 1, len(right)) + right * random.uniform(-1, 3)).round(1).astype(numpy.float32)
        curve = curve_of_scikit_learn(right, scores)
        assert curve.average == average_precision_score(right, scores)
        found[f"class {number}"] = curve
    return found


def of_coco(random: numpy.random.Generator, classes: int) -> dict[str, Curve]:
    entries, found = {}, []
    categories = {number: str(number) for number in range(1, classes + 1)}
    images = [SimpleNamespace(id=n, _asdict=lambda n=n: {"id": n, "width": 200, "height": 200}) for n in range(1, 30)]
    for image in images:
        entries[image.id] = []
        for category in categories:
            corner, size = random.uniform(0, 100, 2), random.uniform(20, 90, 2)
            box = [*map(float, corner), *map(float, size)]
            number = len(images) * category + image.id
            fields = {"id": number, "image_id": image.id, "category_id": category, "area": float(size.prod())}
            entries[image.id].append({**fields, "bbox": box, "iscrowd": 0})
            for _ in range(int(random.integers(0, 3))):
                near = [float(v) for v in numpy.array(box) + random.normal(0, 9, 4)]
                found.append({**fields, "bbox": near, "score": float(random.random())})
    for one in found:
        del one["id"], one["area"]
    test = SimpleNamespace(images=images, annotations=SimpleNamespace(objects=entries, categories=categories))
    return {str(number): curve_of_coco(curves) for number, curves in category_curves(test, found, "bbox", categories)}


@pytest.mark.parametrize("classes", [1, 5, 12])
@pytest.mark.parametrize("made", [of_scikit_learn, of_coco])
def test_the_area_under_a_line_is_the_number_in_the_legend(made, classes, tmp_path: Path, monkeypatch):
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *arguments, **options: figures.append(figure))
    curves = made(numpy.random.default_rng(classes), classes)
    write_curves(tmp_path, curves, "title")
    (axes,) = figures[0].axes
    lines = axes.get_lines()
    assert len(lines) == min(classes, 8) + 1
    for line in lines:
        x, y = line.get_xdata(), line.get_ydata()
        assert line.get_drawstyle() == "default" and (numpy.diff(x) >= 0).all()
        assert (x[0], x[-1]) == pytest.approx((0, 1)) and y.min() >= 0 and y.max() <= 1 + 1e-12
        stated = float(re.search(r": ([\d.]+) ?%$", line.get_label())[1])
        assert 100 * numpy.trapezoid(y, x) == pytest.approx(stated, abs=0.0501)
        name = line.get_label().rpartition(":")[0]
        exact = curves[name].average if name in curves else numpy.mean([curve.average for curve in curves.values()])
        assert numpy.trapezoid(y, x) == pytest.approx(exact, abs=1e-9)
    with (tmp_path / "precision-recall.csv").open(newline="") as file:
        assert {row["class"] for row in csv.DictReader(file)} == set(curves)
