"""`golu-vision evaluate --details`: the tables against the metrics and against scikit-learn, and what is refused."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
from PIL import Image
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    precision_score,
)

from command_line import runner_in_this_process
from golu_vision.cli import COMMAND_LINE
from vision_program import FAST, VISION

FOLDER = Path("runs/vision/digits/golu/seed0")
FILES = {"summary.csv", "classes.csv", "confusion.csv", "confusion.png", "precision-recall.csv", "precision-recall.png"}


@pytest.fixture
def run_here(monkeypatch, capfd):
    return runner_in_this_process(COMMAND_LINE, monkeypatch, capfd)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def root(few_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on four classes, one of which a spreadsheet would take for a formula, and its data."""
    place = tmp_path_factory.mktemp("details")
    shutil.copytree(few_digits, place / "photos")
    for split in ("train", "test"):
        (place / "photos" / split / "3").rename(place / "photos" / split / "=1+1")
    done = VISION.run("train", "digits", "--data.root", "photos", "--epochs", "2", *FAST, cwd=place)
    assert done.returncode == 0, done.stderr
    return place


@pytest.fixture
def details(root: Path, run_here) -> SimpleNamespace:
    shutil.rmtree(root / "out", ignore_errors=True)
    done = run_here("evaluate", str(FOLDER), "--details", "out", cwd=root)
    assert done.returncode == 0, done.stderr
    assert "details: out" in done.stdout and "the same as in result.json" in done.stderr
    lines = run_here("predict", str(FOLDER), "photos/test", "--format", "jsonl", "--top", "9", cwd=root).stdout
    seen = [json.loads(line) for line in lines.splitlines()]
    return SimpleNamespace(
        folder=root / "out",
        classes=json.loads((root / FOLDER / "classes.json").read_text())["classes"],
        right=[Path(line["image"]).parent.name for line in seen],
        images=[line["image"] for line in seen],
        probabilities=[{c["name"]: c["probability"] for c in line["classes"]} for line in seen],
        metrics=json.loads((root / FOLDER / "result.json").read_text())["metrics"],
    )


def test_the_tables_are_scikit_learns_of_what_predict_says(details):
    classes, right = details.classes, details.right
    chosen = [max(p, key=p.get) for p in details.probabilities]
    rows = {row["class"]: row for row in table(details.folder / "classes.csv")}
    assert set(rows) == set(classes)
    for name in classes:
        row = rows[name]
        assert int(row["images"]) == right.count(name)
        scores = [p[name] for p in details.probabilities]
        expected = average_precision_score([one == name for one in right], scores)
        assert float(row["average precision (%)"]) == pytest.approx(100 * expected, rel=1e-4)
        hits = sum(a == b == name for a, b in zip(right, chosen, strict=True))
        assert float(row["accuracy (%)"]) == pytest.approx(100 * hits / right.count(name), rel=1e-4)
        precision = precision_score([one == name for one in right], [one == name for one in chosen], zero_division=0)
        assert float(row["precision (%)"] or 0) == pytest.approx(100 * precision, rel=1e-4)
        f1 = f1_score([one == name for one in right], [one == name for one in chosen], zero_division=0)
        assert float(row["F1 (%)"]) == pytest.approx(100 * f1, rel=1e-4)
    (summary,) = table(details.folder / "summary.csv")
    assert float(summary["accuracy (%)"]) == pytest.approx(details.metrics["top1"], rel=1e-4)
    balanced = balanced_accuracy_score(right, chosen)
    assert float(summary["balanced accuracy (%)"]) == pytest.approx(100 * balanced, rel=1e-4)
    macro = f1_score(right, chosen, average="macro", zero_division=0)
    assert float(summary["macro F1 (%)"]) == pytest.approx(100 * macro, rel=1e-4)
    matrix = [
        [int(v) for key, v in row.items() if key != "right class"] for row in table(details.folder / "confusion.csv")
    ]
    assert numpy.array_equal(matrix, confusion_matrix(right, chosen, labels=classes))
    top1 = 100 * numpy.trace(matrix) / numpy.sum(matrix)
    assert top1 == pytest.approx(details.metrics["top1"])


def test_mistakes_are_all_and_the_surest_first(details):
    chosen = [max(p, key=p.get) for p in details.probabilities]
    wrong = {i for i, a, b in zip(details.images, details.right, chosen, strict=True) if a != b}
    rows = table(details.folder / "mistakes.csv")
    assert {row["image"] for row in rows} == wrong and len(rows) == len(wrong)
    sure = [float(row["probability of the chosen class"]) for row in rows]
    assert sure == sorted(sure, reverse=True)
    assert {path.name for path in details.folder.iterdir()} >= FILES | {"mistakes.png", "confusions.csv"}
    for path in details.folder.glob("*.png"):
        with Image.open(path) as picture:
            assert min(picture.size) > 200


def test_a_folder_that_holds_something_is_refused(root, run_here, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    done = run_here("evaluate", str(FOLDER), "--details", str(tmp_path), cwd=root)
    assert done.returncode == 2 and "name a new one by --details" in done.stderr and "top1" not in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.slow
def test_two_processes_give_the_same_tables(details, root, tmp_path):
    place: Any = tmp_path / "two"
    done = VISION.run("evaluate", str(FOLDER), "--details", str(place), cwd=root, processes=2)
    assert done.returncode == 0, done.stderr
    for name in ("classes.csv", "confusion.csv"):
        assert (place / name).read_text() == (details.folder / name).read_text()
    assert [row["image"] for row in table(place / "mistakes.csv")] == [
        row["image"] for row in table(details.folder / "mistakes.csv")
    ]
