"""MixUp and CutMix on whole batches, dependent only on (seed, epoch, position), not on the number of processes."""

from __future__ import annotations

import numpy
import torch
from torch import Tensor

from golu_core.training import Purpose, RequestError
from golu_core.training.data import BatchPlan, derive_seed

from .config import Mix

_BLOCK = 8
"""Images are mixed within blocks of eight, each with the one four positions away. The epoch's order is random, so a
fixed offset is as good as a random partner, and no process needs images from another one. Copies of an image made by
repeated augmentation are less than four apart, so they are never mixed with each other."""


def check_mixing(mix: Mix, plan: BatchPlan) -> None:
    """Raise RequestError if the batches of a device cannot be mixed."""
    if mix.group % _BLOCK:
        raise RequestError(
            f"MixUp and CutMix pair images within blocks of {_BLOCK}: --mix.group must be a multiple of it"
        )
    if plan.device_size % _BLOCK:
        raise RequestError(
            f"MixUp and CutMix pair images within blocks of {_BLOCK}, but the micro-batch size per device is "
            f"{plan.device_size}: choose a --batch-size or --micro-batch-size that makes it a multiple of {_BLOCK}"
        )


def mix_batch(
    images: Tensor, targets: Tensor, positions: Tensor, mix: Mix, seed: int, epoch: int
) -> tuple[Tensor, Tensor]:
    """Mix each image with its partner.

    Args:
        images: (N, 3, H, W) floating point, N a multiple of 8.
        targets: (N, classes) one-hot or soft.
        positions: (N,) int64 on the CPU, each image's position in the epoch.
        mix: The alphas of MixUp and CutMix, and the group size.
        seed: The run's seed.
        epoch: The current epoch.

    Returns:
        Mixed images and soft targets, with the same shapes.
    """
    count, _, height, width = images.shape
    partner = torch.arange(count).view(-1, _BLOCK).roll(_BLOCK // 2, dims=1).flatten().to(images.device)
    other_images, other_targets = images[partner], targets[partner]
    images = images.clone()
    weights = torch.empty(count)
    groups = positions.div(mix.group, rounding_mode="floor")
    for group in groups.unique().tolist():
        rows = groups == group
        rng = numpy.random.default_rng(derive_seed(seed, Purpose.MIX, epoch, group))
        use_cutmix = mix.cutmix > 0 and (mix.mixup == 0 or rng.random() < 0.5)
        ratio = float(rng.beta(*(2 * (mix.cutmix if use_cutmix else mix.mixup,))))
        device_rows = rows.nonzero().flatten().to(images.device)
        if use_cutmix:
            top, bottom, left, right = cutmix_box(ratio, height, width, rng)
            images[device_rows, :, top:bottom, left:right] = other_images[device_rows, :, top:bottom, left:right]
            ratio = 1.0 - (bottom - top) * (right - left) / (height * width)
        else:
            images[device_rows] = images[device_rows] * ratio + other_images[device_rows] * (1.0 - ratio)
        weights[rows] = ratio
    weights = weights.to(targets)[:, None]
    return images, targets * weights + other_targets * (1.0 - weights)


def cutmix_box(ratio: float, height: int, width: int, rng: numpy.random.Generator) -> tuple[int, int, int, int]:
    """Draw a box (top, bottom, left, right) that covers about 1 - ratio of the image.

    Follows equation 2 of Yun et al., ICCV 2019. The box is clipped at the border, so it can be smaller.
    """
    center_y, center_x = int(rng.integers(height)), int(rng.integers(width))
    half = 0.5 * (1.0 - ratio) ** 0.5
    half_height, half_width = int(half * height), int(half * width)
    return (
        max(0, center_y - half_height),
        min(height, center_y + half_height),
        max(0, center_x - half_width),
        min(width, center_x + half_width),
    )
