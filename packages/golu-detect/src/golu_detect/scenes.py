"""Images and their targets as a data set, augmented in training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import torch
from PIL import Image as PillowImage
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from golu_core.training import Purpose, RequestError, SampleKey, seeded
from golu_core.training.config import Background
from golu_core.training.data import decode, read_file
from golu_core.training.messages import printable

from .annotations import Annotations, Image
from .coco import IGNORED, instance_target, segmentation_target
from .config import DetectionAugment, SegmentationAugment

Target = dict[str, Tensor]


class SceneBatch(NamedTuple):
    """The images of one process in one step.

    Attributes:
        images: N tensors of (3, H, W) uint8, each of its own size.
        targets: The target of each image; see `instance_target`, or `segmentation`: (H, W) uint8.
        positions: (N,) int64, position in the order, or -1 for an image that only fills the batch.
        samples: (N,) int64, the index of each image in the split.
    """

    images: list[Tensor]
    targets: list[Target]
    positions: Tensor
    samples: Tensor


class Scenes:
    """A split as a data set: images and their targets, augmented in training.

    Args:
        folder: The folder with the images.
        annotations: The split's annotations.
        images: The images in use.
        labels: Class labels by category id.
        kind: The type of target: `segmentation`, `boxes`, or `masks`.
        transform: The transform for image and target.
        seed: Seed for the augmentation; None in evaluation.
        apply_exif: Whether to rotate images by their EXIF orientation.
        background: Color behind transparent pixels.
    """

    in_memory = False

    def __init__(
        self,
        folder: Path,
        annotations: Annotations,
        images: Sequence[Image],
        labels: Mapping[int, int],
        kind: str,
        transform: Callable[[Any], Any],
        seed: int | None,
        apply_exif: bool = False,
        background: Background = "white",
    ) -> None:
        self.folder = folder
        self.annotations = annotations
        self.images = tuple(images)
        self.labels = labels
        self.kind = kind
        self.transform = transform
        self.seed = seed
        self.apply_exif = apply_exif
        self.background = background

    def __len__(self) -> int:
        return len(self.images)

    def scene(self, sample: int) -> tuple[Tensor, Target]:
        """Return an image as (3, H, W) uint8 and its target, without augmentation.

        Raises:
            RequestError: The image is missing, cannot be decoded, or does not have the size in its annotation.
        """
        image, pixels = self.images[sample], self.pixels(sample)
        objects = self.annotations.objects.get(image.id, ())
        if self.kind == "segmentation":
            return pixels, {"segmentation": segmentation_target(objects, image, self.labels)}
        return pixels, instance_target(objects, image, self.labels, with_masks=self.kind == "masks")

    def pixels(self, sample: int) -> Tensor:
        """Return an image as (3, H, W) uint8.

        Raises:
            RequestError: The image is missing, cannot be decoded, or does not have the size in its annotation.
        """
        image = self.images[sample]
        return _read_image(self.folder / image.file_name, image, self.apply_exif, self.background)

    def _transformed(self, key: SampleKey) -> tuple[Tensor, Target]:
        pixels, target = self.scene(key.sample)
        wrapped: dict[str, Any] = {"image": tv_tensors.Image(pixels), **target}
        if "boxes" in target:
            size = pixels.shape[-2], pixels.shape[-1]
            wrapped["boxes"] = tv_tensors.BoundingBoxes(target["boxes"], format="XYXY", canvas_size=size)
        for name in ("masks", "segmentation"):
            if name in target:
                wrapped[name] = tv_tensors.Mask(target[name])
        if self.seed is None:
            done = self.transform(wrapped)
        else:
            with seeded(self.seed, Purpose.AUGMENT, key.epoch, key.position):
                done = self.transform(wrapped)
        plain = {name: value.as_subclass(Tensor) for name, value in done.items()}
        return plain.pop("image"), plain

    def __getitems__(self, keys: list[SampleKey]) -> SceneBatch:
        scenes = [self._transformed(key) for key in keys]
        return SceneBatch(
            [image for image, _ in scenes],
            [target for _, target in scenes],
            torch.tensor([key.position for key in keys]),
            torch.tensor([key.sample for key in keys]),
        )


def _read_image(path: Path, image: Image, apply_exif: bool, background: Background) -> Tensor:
    """Return the image as it was annotated: its stored pixels, or rotated by its EXIF orientation."""
    encoded = read_file(path)
    expected = image.height, image.width
    pixels = decode(encoded, str(path), upright=apply_exif, background=background)
    if tuple(pixels.shape[-2:]) == expected:
        return pixels
    other = decode(encoded, str(path), upright=not apply_exif, background=background)
    if tuple(other.shape[-2:]) == expected:
        raise RequestError(
            f"the annotations of {printable(path)} have the size of the image "
            + (
                "as it is stored: pass --data.no-apply-exif"
                if apply_exif
                else "rotated by its EXIF data: pass --data.apply-exif"
            )
        )
    raise RequestError(
        f"the image {printable(path)} has {pixels.shape[-1]} x {pixels.shape[-2]} pixels, "
        f"but its annotation has {image.width} x {image.height}"
    )


def training_transform(augment: DetectionAugment | SegmentationAugment) -> Callable[[Any], Any]:
    """Return the training transform for image and target; detectors resize their images themselves."""
    flip: list[Any] = [v2.RandomHorizontalFlip(0.5)] if augment.flip else []
    if isinstance(augment, DetectionAugment):
        return v2.Compose([*flip, v2.Identity()])
    low, high = augment.resize
    return v2.Compose(
        [
            partial(_resized_at_random, low=low, high=high),
            v2.RandomHorizontalFlip(0.5 if augment.flip else 0.0),
            partial(_padded, size=augment.crop),
            v2.RandomCrop(augment.crop),
            v2.Identity(),
        ]
    )


def evaluation_transform(augment: DetectionAugment | SegmentationAugment) -> Callable[[Any], Any]:
    """Return the evaluation transform for image and target."""
    return v2.Identity() if isinstance(augment, DetectionAugment) else partial(_resized, side=augment.eval_side)


def _resized(scene: Any, side: int) -> Any:
    """Resize the shorter side of a scene, or of an image alone, to `side` pixels."""
    if not isinstance(scene, dict):
        return v2.functional.resize(scene, [side], antialias=True)
    image = v2.functional.resize(scene["image"], [side], antialias=True)
    height, width = image.shape[-2:]
    return {**scene, "image": image, "segmentation": _scaled_classes(scene["segmentation"], height, width)}


def _resized_at_random(scene: dict[str, Any], low: int, high: int) -> Any:
    return _resized(scene, int(torch.randint(low, high + 1, ())))


def _scaled_classes(mask: tv_tensors.Mask, height: int, width: int) -> tv_tensors.Mask:
    """Resize the classes of pixels, (H, W): each pixel gets the class of the pixel that contains its center.

    Pillow and therefore torchvision's reference and the published code resize this way. torchvision's transform for
    masks uses the upper left corner instead of the center: the mask is shifted by half a pixel, and a perfect segmenter
    reaches a mean IoU of only 98.5 instead of 100.
    """
    scaled = PillowImage.fromarray(mask.numpy()).resize((width, height), PillowImage.Resampling.NEAREST)
    return tv_tensors.Mask(torch.from_numpy(numpy.array(scaled)))


def _padded(scene: dict[str, Any], size: int) -> dict[str, Any]:
    """Pad a scene that is smaller than the crop at the bottom and on the right, as torchvision's reference does."""
    height, width = scene["image"].shape[-2:]
    padding = [0, 0, max(size - width, 0), max(size - height, 0)]
    return {
        name: v2.functional.pad(value, padding, fill=IGNORED if isinstance(value, tv_tensors.Mask) else 0)
        for name, value in scene.items()
    }
