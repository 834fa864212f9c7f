"""MixUp and CutMix of whole batches, as a function of (seed, epoch, position): the same on any number of processes."""

from __future__ import annotations

import numpy
import torch
from torch import Tensor

from golu_core.training import Purpose, RequestError
from golu_core.training.data import BatchPlan, derive_seed

from .config import Mix

_BLOCK = 8
"""An image's partner is four places away in its block of eight: the order is random, and no process needs another's
images. Copies of one image under repeated augmentation stand closer and are never mixed with each other."""


def check_mixing(mix: Mix, plan: BatchPlan) -> None:
    """Raises RequestError where a device's batch cannot be mixed."""
    if mix.group % _BLOCK:
        raise RequestError(
            f"MixUp and CutMix pair images within blocks of {_BLOCK}: --mix.group must be a multiple of it"
        )
    if plan.device_size % _BLOCK:
        raise RequestError(
            f"MixUp and CutMix pair images within blocks of {_BLOCK}, but a device takes {plan.device_size} at once: "
            f"choose a batch size or --micro-batch-size that is a multiple of {_BLOCK}"
        )


def mix_batch(
    images: Tensor, targets: Tensor, positions: Tensor, mix: Mix, seed: int, epoch: int
) -> tuple[Tensor, Tensor]:
    """Mixes each image with its partner.

    Args:
        images: (N, 3, H, W) floating point, N a multiple of 8.
        targets: (N, classes) one-hot or soft.
        positions: (N,) int64 on the CPU, each image's place in the epoch.
        mix: which of the two, and their alphas.
        seed, epoch: of the run.

    Returns:
        Mixed images and soft targets, of the same shapes.
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
    """Top, bottom, left, right of a box of about (1 - ratio) of the image (Yun et al., ICCV 2019, equation 2)."""
    center_y, center_x = int(rng.integers(height)), int(rng.integers(width))
    half = 0.5 * (1.0 - ratio) ** 0.5
    half_height, half_width = int(half * height), int(half * width)
    return (
        max(0, center_y - half_height),
        min(height, center_y + half_height),
        max(0, center_x - half_width),
        min(width, center_x + half_width),
    )
