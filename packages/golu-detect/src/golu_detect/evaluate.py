"""Test metrics during training and for finished runs: COCO's mean average precision, or mean IoU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from pycocotools import mask as rle
from torch import Tensor, nn
from torch.nn import functional as F

from golu_core.training import Evaluation, EvaluationFlags, FinishedRun
from golu_core.training.runs import finite_outputs
from golu_core.training.storage import check_output_folder, output_folder

from .coco import IGNORED
from .coco_metrics import Detection, coco_metrics
from .config import IMAGENET_MEAN, IMAGENET_STD, DetectConfig, MaskRcnn
from .data import DetectData, load_data
from .details import SeenSegments, write_detection_details, write_segmentation_details
from .model import build_model
from .scenes import SceneBatch


def evaluate(
    evaluation: Evaluation[DetectConfig], model: nn.Module, data: DetectData, seen: SeenSegments | None = None
) -> tuple[dict[str, float], list[Detection]]:
    """Compute test metrics over all processes, with each image counted once, and return a detector's detections.

    Each image is passed through the network by itself, at its own size. Padding to a common size would change the
    outputs near the edges of the image, and the metric would depend on the batch.

    Args:
        evaluation: The evaluation's processes, or the training run.
        model: The model to test.
        data: The data set with the test images.
        seen: Collector of a segmenter's predictions for the images of this process.

    Returns:
        Metrics in %: `miou` and `pixel_accuracy`, with `loss`; or `box_map` with its parts, and `mask_map` with its
        parts. A metric is left out only if the test set has no objects for it, such as no large objects. Also the
        detections in COCO's format.
    """
    model.eval()
    if evaluation.config.segments:
        return _evaluate_segmentation(evaluation, model, data, seen), []
    found: list[Detection] = []
    categories = {label: category for category, label in data.labels.items()}
    with torch.inference_mode():
        for batch in evaluation.test_batches(data.test, at_once=1):
            images = [unit_range(image, evaluation.device) for image in batch.images]
            with evaluation.processes.autocast():
                outputs = model(images)
            for output, sample, position in zip(outputs, batch.samples.tolist(), batch.positions.tolist(), strict=True):
                if position >= 0:
                    found += detections(output, data.test.images[sample].id, categories)
    found = evaluation.processes.all_gather(found)
    found.sort(key=lambda detection: (detection["image_id"], -detection["score"], detection["bbox"]))
    metrics = coco_metrics(data.test, found, "bbox", evaluation.processes)
    if isinstance(evaluation.config.model, MaskRcnn):
        metrics |= coco_metrics(data.test, found, "segm", evaluation.processes)
    return metrics, found


def finite_heads(model: nn.Module) -> AbstractContextManager[None]:
    """Check the outputs of a detector's or segmenter's heads inside the block.

    torchvision drops boxes whose scores are NaN, so an image would seem to have no objects.
    """
    names = ("rpn.head", "roi_heads.box_predictor", "roi_heads.mask_predictor", "head", "classifier")
    heads = [module for name, module in model.named_modules() if name in names]
    return finite_outputs(heads, "the network's outputs")


def unit_range(image: Tensor, device: torch.device) -> Tensor:
    """Convert a (3, H, W) uint8 image to float32 in [0, 1], the input of detectors, which normalize it themselves."""
    return image.to(device, non_blocking=True).float() / 255


# ------------------------------------------------------------------------------------------------------------ detection


def detections(output: Mapping[str, Tensor], image_id: int, categories: Mapping[int, int]) -> list[Detection]:
    """Return the detections in an image in COCO's results format; all masks are converted to RLE at once."""
    boxes = output["boxes"].float().cpu()
    corners = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1).tolist()
    labels, scores = output["labels"].tolist(), output["scores"].float().tolist()
    masks: list[Any] = [None] * len(labels)
    if "masks" in output and labels:
        stacked = (output["masks"][:, 0] > 0.5).permute(1, 2, 0).to(torch.uint8).cpu().numpy()
        masks = rle.encode(numpy.asfortranarray(stacked))
    found = []
    for box, label, score, mask in zip(corners, labels, scores, masks, strict=True):
        if label not in categories:  # COCO's ids have gaps, but the network has an output for each number
            continue
        entry: Detection = {"image_id": image_id, "category_id": categories[label], "bbox": box, "score": score}
        if mask is not None:
            entry["segmentation"] = {"size": list(mask["size"]), "counts": mask["counts"].decode("ascii")}
        found.append(entry)
    return found


# --------------------------------------------------------------------------------------------------------- segmentation


def normalized(images: Sequence[Tensor], device: torch.device) -> Tensor:
    """Return images of any size as one (N, 3, H, W) float32 batch, normalized as for ImageNet and zero-padded."""
    mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    batch = torch.zeros(len(images), 3, height, width, device=device)
    for row, image in zip(batch, images, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = (unit_range(image, device) - mean) / std
    return batch


def padded_targets(batch: SceneBatch, device: torch.device) -> Tensor:
    """Return segmentation targets, (N, H, W) int64, padded with 255, also for images that only fill the batch."""
    targets = [target["segmentation"] for target in batch.targets]
    height, width = (max(target.shape[axis] for target in targets) for axis in (0, 1))
    padded = torch.full((len(targets), height, width), IGNORED, dtype=torch.int64, device=device)
    for row, target, position in zip(padded, targets, batch.positions.tolist(), strict=True):
        if position != -1:
            row[: target.shape[0], : target.shape[1]] = target.to(device, non_blocking=True)
    return padded


@torch.inference_mode()
def _evaluate_segmentation(
    evaluation: Evaluation[DetectConfig], model: nn.Module, data: DetectData, seen: SeenSegments | None
) -> dict[str, float]:
    classes, device = data.classes, evaluation.device
    counts = torch.zeros(classes * classes, dtype=torch.float64, device=device)
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    for batch in evaluation.test_batches(data.test, at_once=1):
        targets = padded_targets(batch, device)
        with evaluation.processes.autocast():
            logits = model(normalized(batch.images, device))["out"]
        logits = logits.float()
        valid = targets != IGNORED
        chosen = logits.argmax(dim=1)
        pairs = targets[valid] * classes + chosen[valid]
        if seen is not None:
            seen.add(batch.samples, batch.positions, targets, chosen)
        counts += torch.bincount(pairs, minlength=classes * classes)
        loss = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
        sums += torch.stack([loss.double(), valid.sum().double()])
    matrix = evaluation.processes.sum(counts).view(classes, classes)
    loss_sum, pixels = evaluation.processes.sum(sums).tolist()
    return {**segmentation_metrics(matrix), "loss": loss_sum / max(pixels, 1)}


def segmentation_metrics(matrix: Tensor) -> dict[str, float]:
    """Return `miou` and `pixel_accuracy` in % from pixel counts by true and predicted class, (N, N) for N classes.

    The mean is over the classes that occur, either as true or as predicted class.
    """
    hits = matrix.diag()
    union = matrix.sum(dim=0) + matrix.sum(dim=1) - hits
    occurs = union > 0
    iou = hits[occurs] / union[occurs]
    return {"miou": 100 * float(iou.mean()), "pixel_accuracy": 100 * float(hits.sum() / matrix.sum())}


# ------------------------------------------------------------------------------------------------------ a finished run


def load_run(finished: FinishedRun[DetectConfig], classes: int) -> nn.Module:
    """Return a finished run's network with its final weights."""
    model, _ = build_model(finished.config, classes)
    finished.load_weights(model)
    return model


@dataclass(frozen=True)
class DetectEvaluationFlags(EvaluationFlags):
    """Evaluate the final weights of a finished run."""

    details: Path | None = None
    """New folder for the details of the metrics: average precision or IoU of each class, confusions, curves of
    precision and recall of a detector, and the worst mistakes, as CSV and pictures."""


def evaluate_run(folder: Path, flags: DetectEvaluationFlags) -> None:
    """Print the test metrics of a run folder's final weights, and write their details if requested."""
    if flags.details is not None:
        check_output_folder(flags.details, "--details")
    finished = FinishedRun.at(folder, DetectConfig)
    config = finished.evaluated_with(flags)
    data = load_data(config)
    finished.check_input("data", data.fingerprint)
    model = load_run(finished, data.classes)
    with Evaluation(config, folder) as evaluation:
        seen = SeenSegments(data.classes) if config.segments and flags.details is not None else None
        with finite_heads(model):
            metrics, found = evaluate(evaluation, model.to(evaluation.device), data, seen)
        finished.print_beside_result(metrics, evaluation.processes)
        if flags.details is not None:
            images = [] if seen is None else evaluation.processes.all_gather(seen.images)
            if evaluation.is_main:
                with output_folder(flags.details, "--details") as place:
                    if config.segments:
                        write_segmentation_details(place, images, data)
                    else:
                        write_detection_details(place, found, data, isinstance(config.model, MaskRcnn))
            evaluation.processes.say(f"details: {flags.details}")
