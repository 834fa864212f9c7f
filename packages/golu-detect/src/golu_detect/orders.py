"""The order of the training images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from golu_core.training import EpochOrder
from golu_core.training.data import MissingSamples

from .config import DetectConfig
from .scenes import Scenes


@dataclass(frozen=True)
class AspectRatioOrder:
    """An order for each epoch in which `group_size` consecutive images have similar aspect ratios.

    It depends only on (seed, epoch), not on the number of processes. The bins are those of torchvision's reference with
    factor 3: seven edges from 1/2 to 2, evenly spaced on a logarithmic scale.

    Attributes:
        order: The order of the images without groups.
        bins: The bin of each image.
        group_size: Number of consecutive images per group.
    """

    order: EpochOrder
    bins: tuple[int, ...]
    group_size: int

    @property
    def batch_size(self) -> int:
        """Images per step."""
        return self.order.batch_size

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.order.seed

    @property
    def steps_per_epoch(self) -> int:
        """Steps per epoch."""
        return self.order.steps_per_epoch

    def global_batches(self, epoch: int, first_step: int) -> Iterator[list[int]]:
        """Yield the images of each step; an incomplete group is filled with the first images of its bin."""
        waiting: dict[int, list[int]] = {}
        seen: dict[int, list[int]] = {}
        ordered: list[int] = []
        for image in self.order.indices(epoch).tolist():
            row = waiting.setdefault(self.bins[image], [])
            row.append(image)
            seen.setdefault(self.bins[image], []).append(image)
            if len(row) == self.group_size:
                ordered += row
                row.clear()
        for number, row in sorted(waiting.items()):
            if row:
                again = seen[number] * self.group_size
                ordered += (row + again)[: self.group_size]
        for step in range(first_step, self.steps_per_epoch):
            yield ordered[step * self.batch_size : (step + 1) * self.batch_size]


TrainingOrder = EpochOrder | AspectRatioOrder


def training_order(config: DetectConfig, train: Scenes | MissingSamples) -> TrainingOrder:
    """Return the order of the training images; raise RequestError if there are too few for one batch."""
    order = EpochOrder(len(train), config.batch_size, config.seed, config.drop_last)
    if config.group_size == 1 or isinstance(train, MissingSamples):
        return order
    images = train.images
    edges = torch.logspace(-1, 1, 7, base=2)
    ratios = torch.tensor([image.width / image.height for image in images])
    return AspectRatioOrder(order, tuple(torch.bucketize(ratios, edges, right=True).tolist()), config.group_size)
