"""A recipe's UNet at work on random images, for `golu-core analyze times`."""

from __future__ import annotations

import torch
from torch import nn

from golu_core.training.tasks import Workload

from .config import DiffusionConfig
from .train import build_model


def workload(config: DiffusionConfig, samples: int, device: torch.device) -> Workload:
    """Noise to be predicted at random steps; see `golu_core.training.tasks.workloads.MakeWorkload`."""
    model = build_model(config)[0].to(device)
    shape = (samples, *config.data.shape)
    images, noise = torch.randn(shape, device=device), torch.randn(shape, device=device)
    steps = torch.randint(config.noise.steps, (samples,), device=device)

    def training_loss(network: nn.Module) -> torch.Tensor:
        return nn.functional.mse_loss(network(images, steps).float(), noise)

    return Workload(model, training_loss, lambda network: network(images, steps), samples)
