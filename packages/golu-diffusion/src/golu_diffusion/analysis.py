"""Models for `golu-core analyze`: finished denoisers on their test images, and timing models on random images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from golu_core.training import FinishedRun
from golu_core.training.distributed import default_device
from golu_core.training.tasks import AnalysisModel, Batch, TimingModel, spread_keys, with_noise

from .config import DiffusionConfig
from .data import load_data, scaled
from .diffusion import Diffusion
from .evaluate import load_run
from .model import build_model


def analysis_model(folder: Path, samples: int, data_dir: Path | None) -> AnalysisModel:
    """Return an analysis model on noised images with their steps and noise, as `MakeAnalysisModel` describes."""
    finished = FinishedRun.at(folder, DiffusionConfig)
    config = finished.config if data_dir is None else dataclasses.replace(finished.config, data_dir=data_dir)
    data = load_data(config)
    finished.check_input("data", data.fingerprint)
    device = default_device()
    diffusion = Diffusion(config.noise, device)
    batches: list[Batch] = []
    for keys in spread_keys(len(data.test), samples, at_once=32):
        batch = data.test.__getitems__(keys)
        steps, noise = batch.steps.to(device), batch.noise.to(device)
        batches.append((diffusion.noised(scaled(batch.images, device), steps, noise), steps, noise))
    model = load_run(finished).eval().to(device)
    return AnalysisModel(finished.result, model, batches, _loss, _metrics, _noisy)


def _loss(model: nn.Module, batch: Batch) -> Tensor:
    noisy, steps, noise = batch
    return (model(noisy, steps).float() - noise).square().mean()


@torch.no_grad()
def _metrics(model: nn.Module, batches: Sequence[Batch]) -> dict[str, float]:
    total = sum(len(batch[0]) * float(_loss(model, batch)) for batch in batches)
    return {"loss": total / sum(len(batch[0]) for batch in batches)}


def _noisy(batch: Batch, share: float, random: torch.Generator) -> Batch:
    noisy, steps, noise = batch
    return with_noise(noisy, share, random), steps, noise


def timing_model(config: DiffusionConfig, samples: int, device: torch.device) -> TimingModel:
    """Return a timing model that predicts noise at random steps, as `MakeTimingModel` describes."""
    model = build_model(config)[0].to(device)
    shape = (samples, *config.data.shape)
    images, noise = torch.randn(shape, device=device), torch.randn(shape, device=device)
    steps = torch.randint(config.noise.steps, (samples,), device=device)

    def training_loss(network: nn.Module) -> torch.Tensor:
        return nn.functional.mse_loss(network(images, steps).float(), noise)

    return TimingModel(model, training_loss, lambda network: network(images, steps), samples)
