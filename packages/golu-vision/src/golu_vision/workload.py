"""A recipe's classifier at work on random images, for `golu-core analyze times`."""

from __future__ import annotations

import torch
from torch import nn

from golu_core.training.tasks import Workload

from .config import VisionConfig
from .models import build_model


def workload(config: VisionConfig, samples: int, device: torch.device) -> Workload:
    """Images of the recipe's size and random labels; see `golu_core.training.tasks.workloads.MakeWorkload`."""
    classes, size = config.data.classes, config.data.size
    model = build_model(config, classes)[0].to(device).to(memory_format=torch.channels_last)
    images = torch.randn(samples, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(classes, (samples,), device=device)

    def training_loss(network: nn.Module) -> torch.Tensor:
        return nn.functional.cross_entropy(network(images), labels, label_smoothing=config.label_smoothing)

    return Workload(model, training_loss, lambda network: network(images), samples)
