"""Test metrics during training and for finished runs, and a figure of the worst mistakes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from golu_core.training import BatchEvaluationFlags, Evaluation, FinishedRun, SampleKey
from golu_core.training.data import BatchDataset
from golu_core.training.runs import AVERAGE_FILE
from golu_core.training.storage import check_output_folder, output_folder, write_atomically

from .config import Data, VisionConfig
from .data import ImageBatch, ImageData, load_data
from .details import SeenImages, write_details
from .model import build_model
from .transforms import normalized

_WORST = 25


@dataclass(frozen=True)
class Mistake:
    """A test image: its index, its true and predicted classes, and the predicted probability of the true class."""

    index: int
    right: int
    chosen: int
    probability: float


def classification_metrics(logits: Tensor, labels: Tensor, counted: Tensor) -> Tensor:
    """Return sums over a batch: number of images, cross-entropy, correct top-1, and correct top-5 predictions.

    Args:
        logits: (N, classes) float32.
        labels: (N,) int64.
        counted: (N,) bool, False for images that only fill the batch.

    Returns:
        The sums, (4,) float64, or float32 on a device without float64.
    """
    losses = nn.functional.cross_entropy(logits, labels, reduction="none")
    hits = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
    columns = torch.stack([torch.ones_like(losses), losses, hits[:, 0].float(), hits.any(dim=1).float()])
    precise = torch.float32 if logits.device.type == "mps" else torch.float64
    return torch.where(counted, columns, torch.zeros_like(columns)).to(precise).sum(dim=1)


@torch.no_grad()
def evaluate(
    evaluation: Evaluation[VisionConfig],
    model: nn.Module,
    data: ImageData,
    at_once: int | None = None,
    seen: Callable[[Tensor, Tensor, Tensor], None] | None = None,
) -> tuple[dict[str, float], list[Mistake]]:
    """Compute test metrics over all processes, each image counted once, and find the 25 worst predictions.

    Args:
        evaluation: The evaluation's processes, or the training run.
        model: A model that maps (N, 3, H, W) float32 images to (N, classes) logits.
        data: The data set with the test images.
        at_once: Maximum number of images per device and batch; follows from the config's training by default.
        seen: A function that is called with each batch of this process: logits (N, classes) float32, labels (N,) int64,
            and positions (N,) int64, -1 for images that only fill the batch.

    Returns:
        `top1` and `top5` in %, and `loss`, the mean cross-entropy without label smoothing; and the images whose true
        class is least probable, the same on every process.
    """
    model.eval()
    sums: Tensor | None = None
    worst: list[Mistake] = []
    for batch in evaluation.test_batches(data.test, at_once):
        images, labels, positions = _on_device(batch, evaluation.config.data, evaluation.device)
        with evaluation.processes.autocast():
            logits = model(images)
        logits = logits.float()
        batch_sums = classification_metrics(logits, labels, positions >= 0)
        sums = batch_sums if sums is None else sums + batch_sums
        if seen is not None:
            seen(logits, labels, positions)
        worst = _worst_of([*worst, *_mistakes(logits, labels, positions)])
    assert sums is not None
    count, loss, first, five = evaluation.processes.sum(sums).tolist()
    worst = _worst_of(evaluation.processes.all_gather(worst))
    return {"top1": 100 * first / count, "top5": 100 * five / count, "loss": loss / count}, worst


def average_metrics(
    evaluation: Evaluation[VisionConfig], average: nn.Module | None, data: ImageData, at_once: int | None = None
) -> dict[str, float]:
    """Return the test metrics of an average that is kept next to the evaluated weights, as `top1_average` and so on.

    Args:
        evaluation: The evaluation's processes, or the training run.
        average: The averaged model; with None, there are no metrics.
        data: The data whose test set is used.
        at_once: Images per batch, as in `evaluate`.
    """
    if average is None:
        return {}
    metrics, _ = evaluate(evaluation, average, data, at_once)
    return {f"{name}_average": value for name, value in metrics.items()}


def _on_device(batch: ImageBatch, data: Data, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    images = normalized(batch.images, data, device)
    return images, batch.labels.to(device, non_blocking=True), batch.positions.to(device, non_blocking=True)


def _mistakes(logits: Tensor, labels: Tensor, positions: Tensor) -> list[Mistake]:
    """Return the batch's worst images; only these are copied from the device."""
    right = logits.softmax(dim=1).gather(1, labels[:, None])[:, 0]
    right = torch.where(positions >= 0, right, torch.inf)
    rows = right.topk(min(_WORST, len(right)), largest=False).indices
    columns = positions[rows], labels[rows], logits[rows].argmax(dim=1), right[rows]
    listed = zip(*(column.tolist() for column in columns), strict=True)
    return [Mistake(*values) for values in listed if values[0] >= 0]


def _worst_of(mistakes: list[Mistake]) -> list[Mistake]:
    return sorted(mistakes, key=lambda m: (m.probability, m.index))[:_WORST]


def save_mistakes(path: Path, mistakes: list[Mistake], test: BatchDataset, classes: Sequence[str], data: Data) -> None:
    """Draw the worst test images with their true and predicted classes; mistakes are red."""
    from golu_core.training.figures import TitledImage, image_grid, save_png

    wrong = sum(m.right != m.chosen for m in mistakes)
    batch: ImageBatch = test.__getitems__([SampleKey(m.index, -1, m.index) for m in mistakes])
    images = []
    for mistake, image in zip(mistakes, batch.images, strict=True):
        chosen, right = classes[mistake.chosen], classes[mistake.right]
        title = f"{chosen}, is {right}" if chosen != right else f"{right}, right"
        title += f"\np({right}) = {mistake.probability:.2f}"
        images.append(TitledImage(image, title, "tab:red" if chosen != right else "black"))
    heading = f"The {len(mistakes)} test images with the least probable right class ({wrong} misclassified)"
    figure = image_grid(images, 5, heading)
    write_atomically(path, lambda partial: save_png(figure, partial, dpi=100))


@dataclass(frozen=True)
class VisionEvaluationFlags(BatchEvaluationFlags):
    """Evaluate the final weights of a finished run."""

    details: Path | None = None
    """New folder for the details of the metrics: accuracy and precision of each class, confusions, curves of
    precision and recall, and the most confident mistakes, as CSV and pictures."""


def evaluate_run(folder: Path, flags: VisionEvaluationFlags) -> None:
    """Print the test metrics of a run folder's final weights, and write their details if requested."""
    if flags.details is not None:
        check_output_folder(flags.details, "--details")
    finished = FinishedRun.at(folder, VisionConfig)
    config = finished.evaluated_with(flags)
    data = load_data(config)
    finished.check_input("data", data.fingerprint)
    model, _ = build_model(config, len(data.classes))
    finished.load_evaluated_weights(model, config.average)
    with Evaluation(config, folder) as evaluation:
        model.to(evaluation.device).to(memory_format=torch.channels_last)
        seen = SeenImages()
        metrics, _ = evaluate(evaluation, model, data, flags.eval_batch, seen.add if flags.details else None)
        if config.average is not None and not config.average.evaluate:
            finished.load_weights(model, AVERAGE_FILE)
            metrics |= average_metrics(evaluation, model, data, flags.eval_batch)
        finished.print_beside_result(metrics, evaluation.processes)
        if flags.details is not None:
            images = evaluation.processes.all_gather(seen.images)
            if evaluation.is_main:
                with output_folder(flags.details, "--details") as place:
                    write_details(place, images, data)
            evaluation.processes.say(f"details: {flags.details}")
