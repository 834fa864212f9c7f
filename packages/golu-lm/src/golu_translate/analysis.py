"""Analysis of recipes on random sentences, for `golu-core analyze times`."""

from __future__ import annotations

import torch
from torch import nn

from golu_core.training.tasks import TimingModel

from .config import TranslationConfig
from .model import build_model
from .vocabulary import PAD

_SENTENCE = 32  # subwords; sentences of WMT14 have about 30


def timing_model(config: TranslationConfig, samples: int, device: torch.device) -> TimingModel:
    """Return a timing model for pairs of one length; inference is a forward pass over both sides, not a search."""
    model = build_model(config)[0].to(device)
    length = min(_SENTENCE, config.model.longest)
    source, target = (
        torch.randint(PAD + 1, config.model.vocabulary, (samples, length), device=device) for _ in range(2)
    )
    places = torch.arange(target.numel(), device=device)

    def training_loss(network: nn.Module) -> torch.Tensor:
        targets = target.flatten()
        total: torch.Tensor = network(source, target.roll(1, 1), targets, places, smoothing=config.label_smoothing)
        return total / len(targets)

    return TimingModel(model, training_loss, lambda network: network(source, target), samples)
