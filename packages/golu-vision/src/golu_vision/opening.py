"""The lines that a golu-vision run prints before its first step."""

from __future__ import annotations

from torch import nn

from golu_core.training import EpochOrder, Fingerprint, Opening, SwappedActivations, parameter_count
from golu_core.training.data import MissingSamples
from golu_core.training.finetuning import Start, shown_start

from .config import VisionConfig
from .data import ImageData


def opening(
    config: VisionConfig,
    data: ImageData,
    model: nn.Module,
    swapped: SwappedActivations,
    order: EpochOrder,
    start: Start | None,
) -> Opening:
    """Return the lines about the data set and the model."""
    return Opening(
        data=f"{config.data.title}, {len(data.train):,} training and {len(data.test):,} {config.holdout} images, "
        f"{len(data.classes):,} classes",
        model=f"{config.model.name}, {parameter_count(model):,} parameters",
        swapped=swapped,
        batch=f"{config.batch_size} images",
        length=f", {order.steps_per_epoch:,} an epoch",
        more=shown_start(start),
    )


def published_sizes(config: VisionConfig) -> ImageData:
    """Return a stand-in for the recipe's data set, so that a dry run works without it."""
    data = config.data
    return ImageData(
        train=MissingSamples(data.train_images),
        test=MissingSamples(data.test_images),
        classes=tuple(map(str, range(data.classes))),
        facts={},
        remarks=(),
        fingerprint=Fingerprint(lambda: "missing"),
        test_name=str,
    )
