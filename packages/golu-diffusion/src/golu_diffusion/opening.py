"""The lines that a golu-diffusion run prints before its first step."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from golu_core.training import EpochOrder, Fingerprint, Opening, SwappedActivations, parameter_count
from golu_core.training.data import MissingSamples
from golu_core.training.finetuning import Start, shown_start

from .config import DiffusionConfig
from .data import DiffusionData


def opening(
    config: DiffusionConfig,
    data: DiffusionData,
    model: nn.Module,
    swapped: SwappedActivations,
    order: EpochOrder,
    start: Start | None,
) -> Opening:
    """Return the lines about images and network."""
    return Opening(
        data=f"{config.data.title}, {data.facts['train']:,} training, {data.facts['test']:,} {config.holdout} images "
        f"of {config.data.size} x {config.data.size} pixels",
        model=f"UNet, {parameter_count(model):,} parameters",
        swapped=swapped,
        batch=f"{config.batch_size} images",
        length=f", {order.steps_per_epoch:,} an epoch",
        more=shown_start(start),
    )


def published_sizes(config: DiffusionConfig) -> DiffusionData:
    """Return a stand-in for the recipe's data, for a dry run without them."""
    sizes = {"train": config.data.train_size or config.batch_size, "test": config.data.test_size}
    train, test = (cast(Any, MissingSamples(count)) for count in sizes.values())  # nothing reads them
    return DiffusionData(train, test, facts=sizes, remarks=(), fingerprint=Fingerprint(lambda: "missing"))
