"""Noise for whole training batches, drawn on the device by one generator."""

from __future__ import annotations

import torch

from golu_core.training import Purpose
from golu_core.training.data import derive_seed

from .config import DiffusionConfig
from .data import NoisyBatch


class DeviceNoise:
    """The noise of a run's training images, which depends on (seed, epoch, batch) for each batch.

    Every process draws the noise of the whole batch and uses the part for its own images, so the noise does not depend
    on how the batch is split. Different kinds of devices draw different numbers.

    Args:
        config: The run's configuration.
        device: The device that draws the noise, which stores one batch.
    """

    def __init__(self, config: DiffusionConfig, device: torch.device) -> None:
        self._seed = config.seed
        self._noise = torch.empty(config.batch_size, *config.data.shape, device=device)
        self._random = torch.Generator(device)
        self._drawn: tuple[int, int] | None = None

    def added_to(self, batch: NoisyBatch, epoch: int) -> NoisyBatch:
        """Return a batch with its noise: (N, C, size, size) float32 on the device.

        Args:
            batch: Images of one step, or some of them.
            epoch: The epoch, counted from 0.
        """
        size = len(self._noise)
        step = epoch, int(batch.positions[0]) // size
        if step != self._drawn:
            self._random.manual_seed(derive_seed(self._seed, Purpose.BATCH_NOISE, *step))
            self._noise.normal_(generator=self._random)
            self._drawn = step
        rows = (batch.positions % size).to(self._noise.device, non_blocking=True)
        return batch._replace(noise=self._noise[rows])
