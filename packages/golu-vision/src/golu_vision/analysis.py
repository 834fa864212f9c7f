"""Models for `golu-core analyze`: finished classifiers on their test images, and timing models on random images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from golu_core.training import FinishedRun
from golu_core.training.distributed import default_device
from golu_core.training.tasks import AnalysisModel, Batch, TimingModel, spread_keys, with_noise

from .config import VisionConfig
from .data import load_data
from .evaluate import classification_metrics
from .model import build_model
from .transforms import normalized


def analysis_model(folder: Path, samples: int, data_dir: Path | None) -> AnalysisModel:
    """Return an analysis model on normalized images and their labels, as `MakeAnalysisModel` describes."""
    finished = FinishedRun.at(folder, VisionConfig)
    config = finished.config if data_dir is None else dataclasses.replace(finished.config, data_dir=data_dir)
    data = load_data(config)
    finished.check_input("data", data.fingerprint)
    model, _ = build_model(config, len(data.classes))
    finished.load_evaluated_weights(model, config.average)
    device = default_device()
    batches: list[Batch] = []
    for keys in spread_keys(len(data.test), samples):
        batch = data.test.__getitems__(keys)
        batches.append((normalized(batch.images, config.data, device), batch.labels.to(device)))
    model = model.eval().to(device).to(memory_format=torch.channels_last)
    return AnalysisModel(finished.result, model, batches, _loss, _metrics, _noisy)


def _loss(model: nn.Module, batch: Batch) -> Tensor:
    images, labels = batch
    return nn.functional.cross_entropy(model(images).float(), labels)


@torch.no_grad()
def _metrics(model: nn.Module, batches: Sequence[Batch]) -> dict[str, float]:
    sums = torch.stack(
        [classification_metrics(model(x).float(), y, torch.ones_like(y, dtype=torch.bool)) for x, y in batches]
    ).sum(dim=0)
    count, loss, first, five = sums.tolist()
    return {"top1": 100 * first / count, "top5": 100 * five / count, "loss": loss / count}


def _noisy(batch: Batch, share: float, random: torch.Generator) -> Batch:
    images, labels = batch
    return with_noise(images, share, random), labels


def timing_model(config: VisionConfig, samples: int, device: torch.device) -> TimingModel:
    """Return a timing model on images of the recipe's size with random labels, as `MakeTimingModel` describes."""
    classes, size = config.data.classes, config.data.size
    model = build_model(config, classes)[0].to(device).to(memory_format=torch.channels_last)
    images = torch.randn(samples, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(classes, (samples,), device=device)

    def training_loss(network: nn.Module) -> torch.Tensor:
        return nn.functional.cross_entropy(network(images), labels, label_smoothing=config.label_smoothing)

    return TimingModel(model, training_loss, lambda network: network(images), samples)
