"""Denoising diffusion: the forward process, its reversal, and sampling by DDPM and DDIM.

Equation numbers are those of Ho et al., "Denoising Diffusion Probabilistic Models" (2020), or, marked DDIM, of Song et
al., "Denoising Diffusion Implicit Models" (2021). Steps are counted from 0 here, from 1 in the papers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from golu_core.training import Purpose, RequestError
from golu_core.training.config import check_fields
from golu_core.training.data import generator

from .config import Noise

Variance = Literal["beta", "posterior"]
Predictor = Callable[[Tensor, Tensor], Tensor]
"""A function that predicts the noise in images (N, C, H, W) at steps (N,)."""


class Diffusion:
    """The constants of the process, computed in float64 and stored in float32 where they multiply images.

    Attributes:
        steps: Number of steps, T.
        beta: (T,) float32, the variance added by each step.
        alpha_bar: (T,) float64 on the CPU, the remaining fraction of the image's variance after each step: the product
            of 1 - beta up to that step. In float32 it would be 0 at the end of long processes, and 1 at the beginning
            of gentle ones.
    """

    def __init__(self, noise: Noise, device: torch.device | str = "cpu") -> None:
        check_fields(noise, "--noise.")
        self.steps = noise.steps
        beta = torch.linspace(noise.beta_start, noise.beta_end, noise.steps, dtype=torch.float64)
        alpha_bar = (1 - beta).cumprod(0)
        before = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])

        def kept(values: Tensor) -> Tensor:
            return values.float().to(device)

        self.beta, self.alpha_bar = kept(beta), alpha_bar
        self.image_scale, self.noise_scale = kept(alpha_bar.sqrt()), kept((1 - alpha_bar).sqrt())
        self._predicted_scale = kept(beta / (1 - alpha_bar).sqrt())
        self._alpha_root = kept((1 - beta).sqrt())
        self._beta_root = kept(beta.sqrt())
        self.posterior_variance = kept(beta * (1 - before) / (1 - alpha_bar))
        self._posterior_root = self.posterior_variance.sqrt()

    def noised(self, images: Tensor, steps: Tensor, noise: Tensor) -> Tensor:
        """Return noised images: x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps (equation 4).

        Args:
            images, noise: (N, C, H, W).
            steps: (N,) int64.
        """
        return _each(self.image_scale, steps) * images + _each(self.noise_scale, steps) * noise

    def denoised(self, x: Tensor, steps: Tensor, predicted: Tensor) -> Tensor:
        """Return the image for the predicted noise, x_0 in equation 4; (N, C, H, W)."""
        return (x - _each(self.noise_scale, steps) * predicted) / _each(self.image_scale, steps)

    def in_range(self, x: Tensor, step: int, predicted: Tensor) -> Tensor:
        """Return the predicted noise, corrected so that its image is in [-1, 1], like every image.

        Ho et al.'s own code does the same. Without it, errors at the last steps of the process are multiplied by up to
        1 / sqrt(alpha_bar_T) = 158.

        Args:
            x, predicted: (N, C, H, W), the noisy images and the predicted noise.
            step: The step, counted from 0.
        """
        image = (x - self.noise_scale[step] * predicted) / self.image_scale[step]
        return (x - self.image_scale[step] * image.clamp(-1, 1)) / self.noise_scale[step]

    def ddpm_step(self, x: Tensor, step: int, predicted: Tensor, draw: Tensor, variance: Variance = "beta") -> Tensor:
        """Take one reverse step (algorithm 2, line 4); the last one adds no noise.

        Args:
            x: (N, C, H, W), the images at the step.
            step: The step to reverse.
            predicted: The predicted noise in x, with the same shape.
            draw: Standard normal noise, with the same shape.
            variance: `beta`, beta_t, optimal for normally distributed images, or `posterior`, equation 7's, optimal for
                a single image (section 3.2); also known as fixed large and fixed small.
        """
        mean = (x - self._predicted_scale[step] * predicted) / self._alpha_root[step]  # equation 11
        root = self._beta_root if variance == "beta" else self._posterior_root
        return mean if step == 0 else mean + root[step] * draw

    def ddim_step(
        self, x: Tensor, step: int, to: int, predicted: Tensor, draw: Tensor | None = None, eta: float = 0.0
    ) -> Tensor:
        """Take one reverse step of (N, C, H, W) from one step to another (DDIM, equation 12).

        Args:
            x: The images at the step.
            step, to: The current step and the target step; -1 is the image.
            predicted: The predicted noise in x, with the same shape.
            draw: Standard normal noise, with the same shape; needed if eta is above 0.
            eta: The factor in DDIM's equation 16: 0 is deterministic, 1 is DDPM with the posterior's variance.
        """
        image = (x - self.noise_scale[step] * predicted) / self.image_scale[step]
        if to < 0:
            return image
        if eta == 0:
            return self.image_scale[to] * image + self.noise_scale[to] * predicted
        assert draw is not None
        before, after = self.alpha_bar[step], self.alpha_bar[to]
        sigma = eta * ((1 - after) / (1 - before) * (1 - before / after)).sqrt()
        direction = (1 - after - sigma**2).clamp(min=0).sqrt()
        return self.image_scale[to] * image + float(direction) * predicted + float(sigma) * draw

    def ddim_times(self, count: int) -> list[int]:
        """Return DDIM's steps in descending order: evenly spaced, from the last to the first (DDIM, appendix D.2)."""
        check_sampling("ddim", count, self.steps)
        times: list[int] = torch.linspace(self.steps - 1, 0, count, dtype=torch.float64).round().long().tolist()
        return times


def _each(values: Tensor, steps: Tensor) -> Tensor:
    return values[steps][:, None, None, None]


def in_fixed_batches(predict: Predictor, size: int = 16) -> Predictor:
    """Run the network on exactly `size` images at a time, repeating the last one to fill a batch.

    Convolutions and matrix products round differently for different batch sizes, so without this an image would depend
    on how many are sampled with it.
    """

    def fixed(x: Tensor, steps: Tensor) -> Tensor:
        missing = -len(x) % size
        padded, times = (torch.cat([part, part[-1:].expand(missing, *part.shape[1:])]) for part in (x, steps))
        parts = zip(padded.split(size), times.split(size), strict=True)
        return torch.cat([predict(images, time) for images, time in parts])[: len(x)]

    return fixed


def check_sampling(
    sampler: str, count: int | None, steps: int, eta: float | None = None, variance: str | None = None
) -> None:
    """Raise RequestError for an unknown sampler, more steps than the process has, or options that do not apply."""
    if sampler not in ("ddpm", "ddim"):
        raise RequestError(f"unknown sampler {sampler!r}: it must be ddpm or ddim")
    if count is not None and not 1 <= count <= steps:
        raise RequestError(f"--steps {count} is not between 1 and the {steps} steps of the process")
    if sampler == "ddpm" and count not in (None, steps):
        raise RequestError(f"ddpm uses all {steps} steps; for {count} use --sampler ddim")
    if sampler == "ddpm" and eta is not None:
        raise RequestError("--eta has no effect on ddpm: leave it out, or use --sampler ddim")
    if sampler == "ddim" and variance is not None:
        raise RequestError("--variance has no effect on ddim, whose noise --eta sets: leave it out")


def batch_noise(seed: int, images: Sequence[int], purpose: int | str, shape: Sequence[int], device: Any) -> Tensor:
    """Return standard normal noise, (N, *shape), which depends only on (seed, image, purpose), not on the batch."""
    noise, random = torch.empty(len(images), *shape), torch.Generator()
    for row, image in zip(noise, images, strict=True):
        row.normal_(generator=generator(seed, Purpose.NOISE, image, purpose, again=random))
    return noise.to(device)


@torch.no_grad()
def sampled(
    diffusion: Diffusion,
    predict: Predictor,
    images: Sequence[int],
    shape: Sequence[int],
    *,
    seed: int,
    sampler: str = "ddpm",
    steps: int | None = None,
    start: Tensor | None = None,
    from_step: int | None = None,
    eta: float = 0.0,
    variance: Variance = "beta",
    clip: bool = True,
    device: Any = "cpu",
) -> Iterator[Tensor]:
    """Yield images sampled by the reverse process after each step; the last one is the result.

    Args:
        diffusion: The diffusion process.
        predict: The network.
        images: The indices of the images, which seed their noise, so that no image depends on the others.
        shape: Shape of an image, (C, H, W).
        seed: Seed for all images.
        sampler: `ddpm` or `ddim`.
        steps: Number of DDIM steps, 50 by default.
        eta: Noise factor of DDIM; see `Diffusion.ddim_step`.
        variance: Variance of DDPM; see `Diffusion.ddpm_step`.
        start: Images to start from instead of noise, (N, *shape).
        from_step: The step of `start`, by default the last one.
        clip: Keep the predicted image in range; see `Diffusion.in_range`.
        device: The network's device.

    Yields:
        The images, (N, *shape), in the range of the training images if the network is good.
    """
    check_sampling(sampler, steps, diffusion.steps)
    times = list(range(diffusion.steps - 1, -1, -1)) if sampler == "ddpm" else diffusion.ddim_times(steps or 50)
    if from_step is not None:
        times = [from_step, *(time for time in times if time < from_step)]
    x = batch_noise(seed, images, "start", shape, device) if start is None else start.to(device)
    for time, following in zip(times, [*times[1:], -1], strict=True):
        predicted = predict(x, torch.full((len(x),), time, device=x.device))
        if clip:
            predicted = diffusion.in_range(x, time, predicted)
        noise = batch_noise(seed, images, time, shape, device) if sampler == "ddpm" or eta > 0 else None
        if sampler == "ddim":
            x = diffusion.ddim_step(x, time, following, predicted, noise, eta)
        else:
            assert noise is not None
            x = diffusion.ddpm_step(x, time, predicted, noise, variance)
        yield x
