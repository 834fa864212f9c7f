"""Predictions of a trained classifier for images: a table, CSV, or JSON lines, and a figure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from rich.progress import track
from torch import Tensor, nn

from golu_core.training import FinishedRun, RequestError, RunFailure
from golu_core.training.config import Samples
from golu_core.training.data import named_images, read_image
from golu_core.training.distributed import default_device
from golu_core.training.messages import complain, console, csv_line, printable, say, say_data
from golu_core.training.runs import finite
from golu_core.training.storage import check_output, regular_json, to_be_written, write_output
from golu_core.training.tasks import parsed_run_flags

from .config import VisionConfig
from .data import load_data
from .initial_weights import CLASSES_FILE
from .model import build_model
from .transforms import evaluation_transform, normalized

_AT_ONCE = 32
_DRAWN = 25


@dataclass(frozen=True)
class PredictFlags:
    """Classify images with a finished run."""

    images: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE|FOLDER|-...")] = ()
    """Images, or folders of them; `-` reads their paths from standard input."""
    top: Samples = 5
    """Classes for each image, the most probable first."""
    format: Literal["table", "csv", "jsonl"] = "table"
    """A table for people, CSV with a line for each class, or a JSON object for each image."""
    grid: Path | None = None
    """PNG file for a picture of the first 25 images with their most probable classes."""


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of an image.

    Attributes:
        path: The file of the image.
        classes: Class names and probabilities, most probable first.
    """

    path: Path
    classes: tuple[tuple[str, float], ...]


class Classifier:
    """A finished run's network on its device, with its preprocessing and class names.

    Args:
        folder: The run folder.

    Raises:
        RequestError: The run is not finished or damaged, or its class names are unknown.
    """

    def __init__(self, folder: Path) -> None:
        finished = FinishedRun.at(folder, VisionConfig)
        self.config = finished.config
        self.classes = classes_of_run(finished)
        self.device = default_device()
        model, _ = build_model(self.config, len(self.classes))
        finished.load_evaluated_weights(model, self.config.average)
        self.model: nn.Module = model.to(self.device).to(memory_format=torch.channels_last).eval()
        self._fit = evaluation_transform(self.config.data)

    def read(self, path: Path) -> Tensor:
        """Read an image as in evaluation, (3, size, size) uint8; raise RequestError if it cannot be read."""
        return self._fit(read_image(path, background=self.config.data.background))

    @torch.inference_mode()
    def logits(self, images: Tensor) -> Tensor:
        """Map (N, 3, size, size) uint8 images to (N, classes) float32 logits; raise RunFailure if not finite."""
        found: Tensor = self.model(normalized(images, self.config.data, self.device)).float().cpu()
        return finite(found, "the network's outputs")

    def predictions(self, paths: Sequence[Path], images: Tensor, top: int) -> list[Prediction]:
        """Return the most probable classes of (N, 3, size, size) uint8 images.

        Args:
            paths: The N files of the images.
            images: The images as `read` returns them.
            top: Number of classes per image.
        """
        values, places = self.logits(images).softmax(dim=1).topk(min(top, len(self.classes)), dim=1)
        return [
            Prediction(path, tuple((self.classes[n], p) for n, p in zip(names, probabilities, strict=True)))
            for path, names, probabilities in zip(paths, places.tolist(), values.tolist(), strict=True)
        ]


def classes_of_run(finished: FinishedRun[VisionConfig]) -> tuple[str, ...]:
    """Return the names of a run's classes; raise RequestError if they cannot be read."""
    if CLASSES_FILE not in finished.result.files:  # an old run that did not store its classes
        return tuple(load_data(finished.config).classes)
    path = finished.check_file(CLASSES_FILE)
    try:
        return tuple(regular_json(path)["classes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RequestError(f"{path} cannot be read: {error}") from None


def predict_command(arguments: Sequence[str]) -> None:
    """Run `golu-vision predict RUN_DIR IMAGE|FOLDER|-... [flags]`.

    Raises:
        RequestError: The request is invalid.
        RunFailure: The network's outputs are not finite, or some images could not be read; the others are predicted.
    """
    folder, flags = parsed_run_flags(PredictFlags, arguments, "golu-vision predict")
    named = named_images(flags.images)
    paths = [path for path, _ in named.images]
    if not paths:
        raise RequestError(
            "name at least one image or folder, or - to read paths from standard input: "
            "golu-vision predict RUN_DIR IMAGE|FOLDER|-..."
        )
    if flags.grid is not None:
        check_output(flags.grid)
    for remark in named.remarks:
        complain(f"note: {remark}")
    classifier = Classifier(folder)
    with to_be_written(flags.grid):
        unreadable = _predict(classifier, paths, flags)
    if unreadable:
        raise RunFailure(f"{unreadable} of {len(paths)} images could not be read; the others are predicted")


def _predict(classifier: Classifier, paths: Sequence[Path], flags: PredictFlags) -> int:
    """Print the prediction for each image, draw the first ones, and return the number of unreadable images."""
    writer = _WRITERS[flags.format]()
    unreadable = 0
    drawn: list[tuple[Prediction, Tensor]] = []
    for start in _progress(range(0, len(paths), _AT_ONCE)):
        read: list[tuple[Path, Tensor]] = []
        for path in paths[start : start + _AT_ONCE]:
            try:
                read.append((path, classifier.read(path)))
            except RequestError as error:
                unreadable += 1
                complain(f"golu-vision predict: {error}")
        if not read:
            continue
        images = torch.stack([image for _, image in read])
        found = classifier.predictions([path for path, _ in read], images, flags.top)
        for prediction in found:
            writer.write(prediction)
        drawn += list(zip(found, images, strict=True))[: _DRAWN - len(drawn)]
    if flags.grid is not None and drawn:
        _draw(flags.grid, drawn)
    return unreadable


def _progress(starts: Iterable[int]) -> Iterable[int]:
    bar = console(stderr=True)
    return track(starts, "images", console=bar, transient=True, disable=not bar.is_terminal)


class _Table:
    def write(self, found: Prediction) -> None:
        """Print the image, and its classes in percent."""
        classes = ", ".join(f"{printable(name)} {100 * probability:.1f} %" for name, probability in found.classes)
        say(f"{printable(found.path)}: {classes}")


class _Csv:
    def __init__(self) -> None:
        self._has_begun = False

    def write(self, found: Prediction) -> None:
        """Print a line per class, after a header line the first time."""
        if not self._has_begun:
            say_data(csv_line(["image", "rank", "class", "probability"]), end="")
            self._has_begun = True
        for rank, (name, probability) in enumerate(found.classes, 1):
            say_data(csv_line([found.path, rank, name, f"{probability:.6f}"]), end="")


class _JsonLines:
    def write(self, found: Prediction) -> None:
        """Print a JSON object."""
        classes = [{"name": name, "probability": probability} for name, probability in found.classes]
        say_data(json.dumps({"image": str(found.path), "classes": classes}))


_WRITERS: dict[str, type[_Table | _Csv | _JsonLines]] = {"table": _Table, "csv": _Csv, "jsonl": _JsonLines}


def _draw(path: Path, drawn: Sequence[tuple[Prediction, Tensor]]) -> None:
    """Draw images with their most probable classes."""
    from golu_core.training.figures import TitledImage, image_grid, save_png

    titles = [f"{name} {100 * probability:.0f}%" for name, probability in (found.classes[0] for found, _ in drawn)]
    images = [TitledImage(image, title) for (_, image), title in zip(drawn, titles, strict=True)]
    figure = image_grid(images, 5)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_output(path, lambda partial: save_png(figure, partial, dpi=100))
