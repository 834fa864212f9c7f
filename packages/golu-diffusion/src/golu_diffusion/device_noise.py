"""Noise of whole training batches, drawn on the device by one generator."""

from __future__ import annotations

import torch

from golu_core.training import Purpose
from golu_core.training.data import derive_seed

from .config import DiffusionConfig
from .data import NoisyBatch


class DeviceNoise:
    """The noise of a run's training images: of each batch a function of (seed, epoch, batch).

    Every process draws that of the whole batch and takes its own images', so that it is the same however the batch is
    split. Devices of different kinds draw different numbers.

    Args:
        config: of the run.
        device: that draws, and keeps one batch.
    """

    def __init__(self, config: DiffusionConfig, device: torch.device) -> None:
        self._seed = config.seed
        self._noise = torch.empty(config.batch_size, *config.data.shape, device=device)
        self._random = torch.Generator(device)
        self._drawn: tuple[int, int] | None = None

    def added_to(self, batch: NoisyBatch, epoch: int) -> NoisyBatch:
        """A batch with its noise: (N, C, size, size) float32 on the device.

        Args:
            batch: images of one step, or some of them.
            epoch: counted from 0.
        """
        size = len(self._noise)
        step = epoch, int(batch.positions[0]) // size
        if step != self._drawn:
            self._random.manual_seed(derive_seed(self._seed, Purpose.BATCH_NOISE, *step))
            self._noise.normal_(generator=self._random)
            self._drawn = step
        rows = (batch.positions % size).to(self._noise.device, non_blocking=True)
        return batch._replace(noise=self._noise[rows])
