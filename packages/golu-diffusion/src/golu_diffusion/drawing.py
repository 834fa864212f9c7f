"""Sample images with all processes together, one batch per process at a time."""

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
    """The sampling options.

    Attributes:
        sampler, steps, seed, eta, variance, clip: As in `sampled`.
        batch_size: Number of images per forward pass. Networks round differently at different batch sizes, so images
            are equal only up to rounding unless `exact` is set.
        exact: Always run the network on 16 images, filled up if there are fewer, so that each image is bit-identical in
            any batch and for any number of processes.
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
        """Yield the images with these indices after each step, (N, *shape) float32; see `sampled`."""
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
    """Sample images 0 to `count` - 1 with all processes together; see `drawn` for the arguments.

    Returns:
        The images, (count, *shape) uint8, the same on each process.
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
    """Sample images 0 to `count` - 1 with all processes together, one batch per process at a time.

    The images of a batch depend only on their indices and the number of processes: a command that resumes draws the
    same images, bit by bit, as one that was not interrupted.

    Args:
        processes: The processes that sample together.
        model: A network that predicts the noise of (N, *shape) float32 images at (N,) int64 steps.
        diffusion: The diffusion process.
        shape: Shape of an image, (C, size, size).
        count: Number of images.
        sampling: The sampling options.
        present: Indices of images that are not needed; batches of only such images are skipped.
        watch: A function that is called after each step with the batch's index, the step, and the images of this
            process.

    Yields:
        Images, (*shape) uint8, by their index; the same on each process.

    Raises:
        RunFailure: An image is not finite.
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
    """Return the network in the run's precision as a function for the samplers.

    Args:
        processes: The processes, which determine the precision; it is float32 on the CPU.
        model: A network that predicts the noise of (N, C, H, W) float32 images at (N,) int64 steps.
        exact: Always use 16 images, as in `Sampling.exact`.
    """

    def predict(x: Tensor, steps: Tensor) -> Tensor:
        with processes.autocast() if processes.device.type != "cpu" else nullcontext():
            noise: Tensor = model(x, steps)
        return noise.float()

    return in_fixed_batches(predict) if exact else predict
