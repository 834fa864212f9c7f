"""Details of a classifier's test metrics: each class, confusions between classes, and confident mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from golu_core.training import SampleKey
from golu_core.training.figures import Curve, write_confusion, write_curves, write_table

from .data import ImageBatch, ImageData

_DRAWN = 25


class SeenImage(NamedTuple):
    """A network's prediction for one test image.

    Attributes:
        position: Index of the image in the test set.
        label: The true class.
        probabilities: (classes,) float32, the predicted probabilities.
    """

    position: int
    label: int
    probabilities: NDArray[numpy.float32]


class SeenImages:
    """Collect the predictions for the test images of this process."""

    def __init__(self) -> None:
        self.images: list[SeenImage] = []

    def add(self, logits: Tensor, labels: Tensor, positions: Tensor) -> None:
        """Add a batch.

        Args:
            logits: (N, classes) float32.
            labels: (N,) int64.
            positions: (N,) int64, -1 for images that only fill the batch.
        """
        rows = zip(positions.tolist(), labels.tolist(), logits.softmax(dim=1).cpu().numpy(), strict=True)
        self.images += [SeenImage(*row) for row in rows if row[0] >= 0]


def write_details(folder: Path, images: Sequence[SeenImage], data: ImageData) -> None:
    """Write the details of the metrics.

    Args:
        folder: The folder for `summary.csv`, `classes.csv`, `confusion.csv` and `.png`, `confusions.csv`,
            `precision-recall.csv` and `.png`, and, if there are mistakes, `mistakes.csv` and `.png`.
        images: The predictions for all test images.
        data: The data set of the images.
    """
    from sklearn.metrics import confusion_matrix

    images = sorted(images)
    labels = numpy.array([image.label for image in images])
    probabilities = numpy.stack([image.probabilities for image in images])
    chosen = torch.from_numpy(probabilities).argmax(dim=1).numpy()  # breaks ties as evaluation does
    counts = confusion_matrix(labels, chosen, labels=range(len(data.classes)))
    curves = {
        name: _curve(labels == number, probabilities[:, number])
        for number, name in enumerate(data.classes)
        if (labels == number).any()
    }
    write_table(
        folder / "classes.csv", [_of_class(number, counts, data.classes, curves) for number in range(len(counts))]
    )
    write_table(folder / "summary.csv", [_summary(labels, chosen)])
    write_confusion(folder, counts, data.classes, "images")
    write_curves(folder, curves, "Precision and recall")
    mistakes = [image for image, choice in zip(images, chosen, strict=True) if image.label != choice]
    mistakes.sort(key=lambda image: (-float(image.probabilities.max()), image.position))
    if mistakes:
        write_table(folder / "mistakes.csv", [_of_mistake(mistake, data) for mistake in mistakes])
        _draw_mistakes(folder / "mistakes.png", mistakes, data)


def _summary(labels: NDArray[numpy.int64], chosen: NDArray[numpy.int64]) -> dict[str, float]:
    """Metrics in which each class counts alike, over the classes that the test set has (scikit-learn)."""
    from sklearn.metrics import precision_recall_fscore_support

    present = numpy.unique(labels)
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, chosen, labels=present, average="macro", zero_division=0.0
    )
    means = {"balanced accuracy (%)": recall, "macro precision (%)": precision, "macro F1 (%)": f1}
    accuracy = {"accuracy (%)": 100 * float((labels == chosen).mean())}
    return accuracy | {name: 100 * float(value) for name, value in means.items()}


def _curve(is_class: NDArray[numpy.bool_], scores: NDArray[numpy.float32]) -> Curve:
    from sklearn.metrics import average_precision_score, precision_recall_curve

    precision, recall, thresholds = precision_recall_curve(is_class, scores)
    lowest = numpy.append(thresholds, numpy.nan)  # the last point has no images
    rising = recall[::-1]
    average = float(average_precision_score(is_class, scores))
    return Curve(rising, precision[::-1], lowest[::-1], average, numpy.diff(rising, prepend=0.0))


def _of_class(
    number: int, counts: NDArray[numpy.int64], classes: Sequence[str], curves: dict[str, Curve]
) -> dict[str, object]:
    right, images, chosen = int(counts[number, number]), int(counts[number].sum()), int(counts[:, number].sum())
    others = counts[number].copy()
    others[number] = 0
    curve = curves.get(classes[number])
    return {
        "class": classes[number],
        "images": images,
        "right": right,
        "accuracy (%)": _percent(right, images),
        "precision (%)": _percent(right, chosen),
        "F1 (%)": _percent(2 * right, images + chosen),
        "average precision (%)": "" if curve is None else 100 * curve.average,
        "most often confused with": classes[int(others.argmax())] if others.any() else "",
    }


def _percent(part: int, whole: int) -> float | str:
    return 100 * part / whole if whole else ""


def _of_mistake(mistake: SeenImage, data: ImageData) -> dict[str, object]:
    chosen = int(mistake.probabilities.argmax())
    return {
        "image": data.test_name(mistake.position),
        "right class": data.classes[mistake.label],
        "chosen class": data.classes[chosen],
        "probability of the chosen class": float(mistake.probabilities[chosen]),
        "probability of the right class": float(mistake.probabilities[mistake.label]),
    }


def _draw_mistakes(path: Path, mistakes: Sequence[SeenImage], data: ImageData) -> None:
    """Draw the most confident mistakes, with the predicted and the true class."""
    from golu_core.training.figures import TitledImage, image_grid, save_png

    drawn = mistakes[:_DRAWN]
    batch: ImageBatch = data.test.__getitems__([SampleKey(m.position, -1, m.position) for m in drawn])
    images = []
    for mistake, image in zip(drawn, batch.images, strict=True):
        chosen = int(mistake.probabilities.argmax())
        title = f"{data.classes[chosen]} {100 * mistake.probabilities[chosen]:.0f}%\nis {data.classes[mistake.label]}"
        images.append(TitledImage(image, title))
    save_png(image_grid(images, 5, f"The most confident of {len(mistakes):,} mistakes"), path, dpi=100)
