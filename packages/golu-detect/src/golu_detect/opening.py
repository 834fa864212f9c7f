"""The lines that a golu-detect run prints before its first step."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from golu_core.training import Fingerprint, Opening, SwappedActivations, parameter_count
from golu_core.training.data import MissingSamples
from golu_core.training.finetuning import Start, shown_start

from .config import DetectConfig
from .data import DetectData
from .orders import TrainingOrder


def opening(
    config: DetectConfig,
    data: DetectData,
    model: nn.Module,
    swapped: SwappedActivations,
    order: TrainingOrder,
    start: Start | None,
) -> Opening:
    """Return the lines about images and network."""
    weights = config.backbone or config.init_from or "none, trained from scratch"
    sizes = f"{len(data.train):,} training and {len(data.test):,} {config.holdout} images"
    left_out = f"{data.facts.get('left_out', 0):,} training images without objects left out"
    return Opening(
        data=f"{config.data.title}, {sizes}, {data.classes} classes with the background; {left_out}",
        model=f"{config.model.kind}, {parameter_count(model):,} parameters, "
        f"{parameter_count(model, trained_only=True):,} of them are trained",
        swapped=swapped,
        batch=f"{config.batch_size} images",
        length=f", {order.steps_per_epoch:,} an epoch",
        more=[("backbone", f"{config.model.backbone}, weights: {weights}"), *shown_start(start)],
    )


def published_sizes(config: DetectConfig) -> DetectData:
    """Return a stand-in for the recipe's data, for a dry run without them."""
    data = config.data
    sizes = (data.train_size or config.batch_size, data.test_size)
    train, test = (cast(Any, MissingSamples(count)) for count in sizes)  # nothing reads them
    return DetectData(
        train=train,
        test=test,
        labels={},
        classes=data.expected_classes,
        names={},
        facts={},
        remarks=(),
        fingerprint=Fingerprint(lambda: "missing"),
    )
