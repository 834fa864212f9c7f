"""The transforms of an image between file and batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import v2

from golu_core.training import RequestError

from .config import Crop, Data, TimmAugment, TorchvisionAugment


def training_transform(data: Data, augment: Crop | TorchvisionAugment | TimmAugment) -> Callable[[Tensor], Tensor]:
    """Return a transform from a decoded image to (3, size, size): uint8, or normalized float32 for timm's erasing.

    Raises:
        RequestError: timm does not accept the settings.
    """
    if isinstance(augment, TimmAugment):
        return _timm_pipeline(data, augment)
    interpolation = v2.InterpolationMode(data.interpolation)
    steps: list[Any] = []
    if isinstance(augment, Crop):
        steps += [partial(fitted, data=data, shorter=data.size), v2.RandomCrop(data.size, padding=augment.pad)]
    else:
        steps.append(v2.RandomResizedCrop(data.size, interpolation=interpolation, antialias=True))
    if augment.flip:
        steps.append(v2.RandomHorizontalFlip())
    if isinstance(augment, TorchvisionAugment) and augment.policy == "autoaugment":
        steps.append(v2.AutoAugment(v2.AutoAugmentPolicy.IMAGENET, interpolation=interpolation))
    return v2.Compose(steps)


def _timm_pipeline(data: Data, augment: TimmAugment) -> Callable[[Tensor], Tensor]:
    from timm.data import create_transform

    drawn = augment.draw_interpolation or data.interpolation == "bilinear"
    try:
        pipeline: Any = create_transform(
            data.size,
            is_training=True,
            hflip=0.5 if augment.flip else 0.0,
            color_jitter=augment.color_jitter or None,
            auto_augment=augment.rand_augment or None,
            interpolation="random" if drawn else "bicubic",
            re_prob=augment.erase,
            re_mode="pixel",
            mean=data.mean,
            std=data.std,
        )
    except (AssertionError, ValueError, KeyError, TypeError) as error:
        raise RequestError(
            f"timm does not understand --augment.rand-augment {augment.rand_augment!r} "
            f"({error or type(error).__name__}); an example is rand-m9-mstd0.5"
        ) from None
    for step in pipeline.transforms:
        for operation in getattr(step, "ops", ()):
            if operation.name.startswith("Posterize"):
                operation.aug_fn = _posterized
    return v2.Compose([v2.ToPILImage(), pipeline])


def _posterized(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    """timm's posterize, extended to the 0 bits of its strongest level, which Pillow 13 refuses: the image is black."""
    if bits >= 8:
        return image
    return ImageOps.posterize(image, bits) if bits > 0 else image.point(_black)


def _black(value: int) -> int:
    return 0


def evaluation_transform(data: Data) -> Callable[[Tensor], Tensor]:
    """Return a transform from a decoded image to (3, size, size) uint8: resize the shorter side, center crop."""
    return partial(fitted, data=data, shorter=data.resize)


def fitted(image: Tensor, data: Data, shorter: int) -> Tensor:
    """Resize the shorter side of a (3, H, W) image to `shorter` and crop the center: (3, size, size)."""
    if image.shape[-2:] == (data.size, data.size) and shorter == data.size:
        return image
    scaled = v2.functional.resize(image, [shorter], v2.InterpolationMode(data.interpolation), antialias=True)
    return v2.functional.center_crop(scaled, [data.size])


def normalized(images: Tensor, data: Data, device: torch.device) -> Tensor:
    """Return the images on the device, normalized.

    Args:
        images: (N, 3, H, W), uint8, or already normalized float32.
        data: The data settings with mean and standard deviation for pixels in [0, 1].
        device: The device of the result.

    Returns:
        The images, (N, 3, H, W) float32, in channels-last memory format, which is faster on both CPUs and GPUs.
    """
    images = images.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)
    if images.dtype != torch.uint8:
        return images
    mean = torch.tensor(data.mean, device=device).mul_(255.0)[:, None, None]
    scale = torch.tensor(data.std, device=device).mul_(255.0).reciprocal_()[:, None, None]
    return images.float().sub_(mean).mul_(scale)
