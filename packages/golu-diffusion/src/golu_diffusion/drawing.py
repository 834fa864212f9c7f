"""Draws images by all processes together, a batch of each at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from golu_core.training import Processes

from .data import pixels_of
from .diffusion import Diffusion, Predictor, Variance, in_fixed_batches, sampled


@dataclass(frozen=True)
class Sampling:
    """How images are drawn.

    Attributes:
        sampler, steps, seed, eta, variance, clip: as in `sampled`.
        batch_size: images that the network takes at once. Networks round differently in batches of different sizes, so
            that images are equal up to rounding; unless they are
        exact: the network takes 16 images each time, filled up where there are fewer, so that each image is the same to
            the last bit in any batch and on any number of processes.
    """

    sampler: str
    steps: int | None
    seed: int
    batch_size: int
    eta: float = 0.0
    variance: Variance = "beta"
    clip: bool = True
    exact: bool = False

    def steps_of(
        self,
        diffusion: Diffusion,
        predict: Predictor,
        numbers: Sequence[int],
        shape: tuple[int, int, int],
        device: torch.device,
    ) -> Iterator[Tensor]:
        """Yield images with these numbers after each step, (N, *shape) float32; see `sampled`."""
        return sampled(
            diffusion,
            predict,
            numbers,
            shape,
            seed=self.seed,
            sampler=self.sampler,
            steps=self.steps,
            eta=self.eta,
            variance=self.variance,
            clip=self.clip,
            device=device,
        )


def draw(
    processes: Processes,
    model: nn.Module,
    diffusion: Diffusion,
    shape: tuple[int, int, int],
    count: int,
    sampling: Sampling,
) -> Tensor:
    """Draw images number 0 to `count` - 1 with all processes together; `drawn` has the arguments.

    Returns:
        (count, *shape) uint8, the same on each process.
    """
    by_number: dict[int, Tensor] = {}
    for images in drawn(processes, model, diffusion, shape, count, sampling):
        by_number |= images
    return torch.stack([by_number[number] for number in range(count)])


def drawn(
    processes: Processes,
    model: nn.Module,
    diffusion: Diffusion,
    shape: tuple[int, int, int],
    count: int,
    sampling: Sampling,
    *,
    present: Set[int] = frozenset(),
    watch: Callable[[int, int, Tensor], None] | None = None,
) -> Iterator[dict[int, Tensor]]:
    """Draw images number 0 to `count` - 1 with all processes together, a batch of each process at a time.

    Which images make up a batch follows from their number and that of the processes alone: a command that resumes
    draws the same images, to the last bit, as one that was not stopped.

    Args:
        processes: that draw together.
        model: predicts the noise of (N, *shape) float32 images at (N,) int64 steps.
        diffusion: the noise at each step.
        shape: of an image, (C, size, size).
        count: of images.
        sampling: how they are drawn.
        present: numbers of images that are not needed; batches of these alone are left out.
        watch: is called after each step with the numbers of the batch and the step and the images of this process.

    Yields:
        Images, (*shape) uint8, by their numbers; the same on each process.

    Raises:
        RunFailure: an image is not finite.
    """
    model.eval()
    predict = predictor(processes, model, sampling.exact)

    def drawn_here(batch: int, mine: Sequence[int]) -> list[tuple[int, Tensor]]:
        if not mine:
            return []
        x = torch.empty(0)
        steps = sampling.steps_of(diffusion, predict, mine, shape, processes.device)
        for number, x in enumerate(steps):
            if watch is not None:
                watch(batch, number, x)
        return list(zip(mine, pixels_of(x), strict=True))

    at_once = sampling.batch_size * processes.count
    for batch, start in enumerate(range(0, count, at_once)):
        everyones = range(start, min(count, start + at_once))
        if all(number in present for number in everyones):
            continue
        mine = everyones[processes.rank :: processes.count]
        yield dict(processes.gathered_from(partial(drawn_here, batch, mine)))


def predictor(processes: Processes, model: nn.Module, exact: bool) -> Predictor:
    """Return the network in the run's precision as the samplers call it.

    Args:
        processes: for the precision, which on the CPU is float32.
        model: predicts the noise of (N, C, H, W) float32 images at (N,) int64 steps.
        exact: take 16 images each time, as `Sampling.exact` has it.
    """

    def predict(x: Tensor, steps: Tensor) -> Tensor:
        with processes.autocast() if processes.device.type != "cpu" else nullcontext():
            noise: Tensor = model(x, steps)
        return noise.float()

    return in_fixed_batches(predict) if exact else predict
