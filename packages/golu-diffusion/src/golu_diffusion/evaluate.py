"""Test loss during training and for finished runs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from golu_core.training import BatchEvaluationFlags, Evaluation, FinishedRun, NonNegativeInt, RequestError
from golu_core.training.config import check_fields
from golu_core.training.runs import AVERAGE_FILE, WEIGHTS_FILE

from .config import DiffusionConfig
from .data import DiffusionData, NoisyBatch, load_data, scaled
from .diffusion import Diffusion
from .fid import check_fid, distance_of_drawn
from .model import UNet


def squared_errors(model: nn.Module, batch: NoisyBatch, diffusion: Diffusion, device: torch.device) -> Tensor:
    """Return each image's mean squared error of the predicted noise, (N,) float32 (Ho et al., equation 14)."""
    steps, noise = batch.steps.to(device, non_blocking=True), batch.noise.to(device, non_blocking=True)
    noisy = diffusion.noised(scaled(batch.images, device), steps, noise)
    return (model(noisy, steps).float() - noise).square().flatten(1).mean(dim=1)


@torch.inference_mode()
def evaluate(
    evaluation: Evaluation[DiffusionConfig],
    model: nn.Module,
    data: DiffusionData,
    diffusion: Diffusion,
    at_once: int | None = None,
) -> dict[str, float]:
    """Compute the test loss over all processes, with each image counted once per draw.

    Args:
        evaluation: The evaluation's processes, or the training run.
        model: A network that predicts the noise of (N, C, H, W) float32 images at (N,) int64 steps.
        data: The data set with the test images.
        diffusion: The diffusion process.
        at_once: Maximum number of images per device and batch; the config's value by default.

    Returns:
        `loss`, and `loss_standard_error` over the draws. Steps and noise are the same for every activation, so
        differences between activations are much smaller than the standard error.
    """
    model.eval()
    device = evaluation.device
    sums = torch.zeros(3, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
    for batch in evaluation.test_batches(data.test, at_once):
        with evaluation.processes.autocast():
            errors = squared_errors(model, batch, diffusion, device)
        errors = errors.to(sums.dtype)[(batch.positions >= 0).to(device)]
        sums += torch.stack([torch.ones_like(errors).sum(), errors.sum(), errors.square().sum()])
    count, total, squares = evaluation.processes.sum(sums).tolist()
    mean = total / count
    variance = max(squares - count * mean**2, 0.0) / max(count - 1, 1)
    return {"loss": mean, "loss_standard_error": math.sqrt(variance / count)}


def load_run(finished: FinishedRun[DiffusionConfig], weights: str = "evaluated") -> UNet:
    """Return the network of a finished run.

    Args:
        weights: `evaluated`, the weights of the run's metrics; `average`; or `last`.

    Raises:
        RequestError: The run does not have these weights, or they are damaged.
    """
    config = finished.config
    if weights == "average" and config.average is None:
        raise RequestError(f"the run in {finished.folder} has no moving average of its weights")
    model = UNet(config.model, config.activation, config.data.channels)
    finished.load_weights(model, weights_file(config, weights))
    return model


def weights_file(config: DiffusionConfig, weights: str) -> str:
    """Return the name of the file that `load_run` loads."""
    averaged = config.average is not None and config.average.evaluate
    return AVERAGE_FILE if weights == "average" or (weights == "evaluated" and averaged) else WEIGHTS_FILE


@dataclass(frozen=True)
class DiffusionEvaluationFlags(BatchEvaluationFlags):
    """Evaluate the final weights of a finished run."""

    fid_images: NonNegativeInt = 0
    """Number of images to draw for the Fréchet inception distance (FID) to the first test images, the same number of
    them. Needs the extra `fid`."""
    fid_weights: Path | None = None
    """File with torch-fidelity's inception weights; by default they are downloaded."""


def evaluate_run(folder: Path, flags: DiffusionEvaluationFlags) -> None:
    """Print the test loss of a run folder's final weights, and with `--fid-images` the FID of images that they draw."""
    finished = FinishedRun.at(folder, DiffusionConfig)
    config = replace(finished.evaluated_with(flags), fid_images=flags.fid_images, fid_weights=flags.fid_weights)
    check_fields(config)
    check_fid(config)
    data = load_data(config)
    finished.check_input("data", data.fingerprint)
    model = load_run(finished)
    with Evaluation(config, folder) as evaluation:
        diffusion = Diffusion(config.noise, evaluation.device)
        metrics = evaluate(evaluation, model.to(evaluation.device), data, diffusion, flags.eval_batch)
        finished.print_beside_result(metrics, evaluation.processes)
        if config.fid_images:
            distance_of_drawn(evaluation.processes, model, diffusion, data, config)
