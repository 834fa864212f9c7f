"""What happens to one image between file and batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from .config import Augment, Data


def training_transform(data: Data, augment: Augment) -> Callable[[Tensor], Tensor]:
    """From a decoded image to (3, size, size): uint8, or normalised float32 for `timm`, which erases by noise."""
    if augment.kind == "timm":
        return _timm_pipeline(data, augment)
    interpolation = v2.InterpolationMode(data.interpolation)
    steps: list[Any] = [v2.RandomResizedCrop(data.size, interpolation=interpolation, antialias=True)]
    if augment.flip:
        steps.append(v2.RandomHorizontalFlip())
    if augment.policy == "autoaugment":
        steps.append(v2.AutoAugment(v2.AutoAugmentPolicy.IMAGENET, interpolation=interpolation))
    return v2.Compose(steps)


def _timm_pipeline(data: Data, augment: Augment) -> Callable[[Tensor], Tensor]:
    from timm.data import create_transform

    pipeline: Any = create_transform(
        data.size,
        is_training=True,
        color_jitter=augment.color_jitter,
        auto_augment=augment.rand_augment or None,
        interpolation="bicubic" if data.interpolation == "bicubic" else "random",
        re_prob=augment.erase,
        re_mode="pixel",
        mean=data.mean,
        std=data.std,
    )
    return v2.Compose([v2.ToPILImage(), pipeline])


def evaluation_transform(data: Data) -> Callable[[Tensor], Tensor]:
    """From a decoded image to (3, size, size) uint8: shorter side to `resize`, centre crop."""
    interpolation = v2.InterpolationMode(data.interpolation)
    return v2.Compose([v2.Resize(data.resize, interpolation, antialias=True), v2.CenterCrop(data.size)])


def fitted(image: Tensor, data: Data) -> Tensor:
    """An image at the size at which it is kept in memory."""
    if image.shape[-2:] == (data.size, data.size):
        return image
    shorter = v2.functional.resize(image, [data.size], v2.InterpolationMode(data.interpolation), antialias=True)
    return v2.functional.center_crop(shorter, [data.size])


def normalized(images: Tensor, data: Data, device: torch.device) -> Tensor:
    """The images on the device, normalised.

    Args:
        images: (N, 3, H, W), uint8, or float32 that already is normalised.
        data: has mean and std of pixels in [0, 1].
        device: where the result lies.

    Returns:
        (N, 3, H, W) float32, channels last in memory, which convolutions prefer on CPUs and GPUs alike.
    """
    images = images.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)
    if images.dtype != torch.uint8:
        return images
    mean = torch.tensor(data.mean, device=device).mul_(255.0)[:, None, None]
    scale = torch.tensor(data.std, device=device).mul_(255.0).reciprocal_()[:, None, None]
    return images.float().sub_(mean).mul_(scale)
