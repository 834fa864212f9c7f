"""Finds a recipe's images, loads them in batches, and says in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from golu_core.training.data import EpochOrder, SampleKey
from golu_core.training.errors import RequestError
from golu_core.training.fields import Background
from golu_core.training.fingerprint import Fingerprint, files_fingerprint, joined, whole_files_fingerprint
from golu_core.training.images import decode, printable, read_file
from golu_core.training.loading import evaluation_loader, loaded
from golu_core.training.scratch import dry_run_folder
from golu_core.training.seeding import Purpose, seeded

from .annotations import Annotations, Image, read_annotations
from .coco import (
    IGNORED,
    class_labels,
    covered_images,
    instance_target,
    object_count,
    segmentation_target,
    trainable_images,
)
from .config import Data, DetectConfig, DetectionAugment, SegmentationAugment
from .layouts import Split, find_splits
from .samples import DIGIT_SCENES_NAME, write_digit_scenes
from .segmentations import given_id, segmentation_problem

Target = dict[str, Tensor]


class SceneBatch(NamedTuple):
    """One process's images of one step.

    Attributes:
        images: N tensors of (3, H, W) uint8, each of its own size.
        targets: of each image; see `instance_target`, or `segmentation`: (H, W) uint8.
        positions: (N,) int64, place in the order, or -1 where the image only fills the batch.
        samples: (N,) int64, which image of the split.
    """

    images: list[Tensor]
    targets: list[Target]
    positions: Tensor
    samples: Tensor


class Scenes:
    """A split as a data set: images and their targets, augmented in training.

    Args:
        folder: of the images.
        annotations: of the split.
        images: those of them that are used.
        labels: class labels by category id.
        kind: of target: `segmentation`, `boxes` or `masks`.
        transform: of image and target.
        seed: of the augmentation; None in evaluation.
        turn: images as their EXIF data say.
        background: what transparent pixels are put on.
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
        turn: bool = False,
        background: Background = "white",
    ) -> None:
        self.folder = folder
        self.annotations = annotations
        self.images = tuple(images)
        self.labels = labels
        self.kind = kind
        self.transform = transform
        self.seed = seed
        self.turn = turn
        self.background = background

    def __len__(self) -> int:
        return len(self.images)

    def scene(self, sample: int) -> tuple[Tensor, Target]:
        """An image as (3, H, W) uint8, and its target, as they are on disk.

        Raises:
            RequestError: the image is missing, cannot be decoded, or is of another size than its annotation says.
        """
        image = self.images[sample]
        pixels = _read_image(self.folder / image.file_name, image, self.turn, self.background)
        objects = self.annotations.objects.get(image.id, ())
        if self.kind == "segmentation":
            return pixels, {"segmentation": segmentation_target(objects, image, self.labels)}
        return pixels, instance_target(objects, image, self.labels, with_masks=self.kind == "masks")

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


def _read_image(path: Path, image: Image, turn: bool, background: Background) -> Tensor:
    """The image as it was annotated: its pixels as they are stored, or turned as its EXIF data say."""
    encoded = read_file(path)
    expected = image.height, image.width
    pixels = decode(encoded, str(path), upright=turn, background=background)
    if tuple(pixels.shape[-2:]) == expected:
        return pixels
    other = decode(encoded, str(path), upright=not turn, background=background)
    if tuple(other.shape[-2:]) == expected:
        raise RequestError(
            f"the annotations of {printable(path)} have the size of the image "
            + (
                "as it is stored, not turned: pass --data.no-turn"
                if turn
                else "turned by its EXIF data: pass --data.turn"
            )
        )
    raise RequestError(
        f"the image {printable(path)} has {pixels.shape[-1]} x {pixels.shape[-2]} pixels, "
        f"but its annotation says {image.width} x {image.height}"
    )


def training_transform(augment: DetectionAugment | SegmentationAugment) -> Callable[[Any], Any]:
    """Of image and target in training; detectors scale their images themselves."""
    flip: list[Any] = [v2.RandomHorizontalFlip(0.5)] if augment.flip else []
    if isinstance(augment, DetectionAugment):
        return v2.Compose([*flip, v2.Identity()])
    low, high = augment.resize
    fill = {tv_tensors.Image: 0, tv_tensors.Mask: IGNORED, "others": 0}
    return v2.Compose(
        [
            v2.RandomResize(low, high + 1, antialias=True),
            v2.RandomHorizontalFlip(0.5 if augment.flip else 0.0),
            v2.RandomCrop(augment.crop, pad_if_needed=True, fill=fill),
            v2.Identity(),
        ]
    )


def evaluation_transform(augment: DetectionAugment | SegmentationAugment) -> Callable[[Any], Any]:
    """Of image and target in evaluation."""
    return v2.Identity() if isinstance(augment, DetectionAugment) else v2.Resize(augment.eval_side, antialias=True)


# ----------------------------------------------------------------------------------------------------------- the splits


@dataclass(frozen=True)
class DetectData:
    """The two splits of a recipe.

    Attributes:
        labels: class labels by category id.
        classes: how many classes there are, with the background.
        names: of the classes, by label.
        facts: what result.json says: sizes, and the published sizes.
        remarks: what differs from the published sizes, and what was left out, as sentences.
        fingerprint: of annotations and images.
    """

    train: Scenes
    test: Scenes
    labels: Mapping[int, int]
    classes: int
    names: Mapping[int, str]
    facts: dict[str, Any]
    remarks: tuple[str, ...]
    fingerprint: Fingerprint


def target_kind(config: DetectConfig) -> str:
    """What the network learns from: `segmentation`, `boxes` or `masks`."""
    return {"deeplabv3": "segmentation", "maskrcnn": "masks"}.get(config.model.kind, "boxes")


def load_data(config: DetectConfig) -> DetectData:
    """Finds both splits and reads their annotations; the digit scenes are written first, once.

    Raises:
        RequestError: a file is missing or malformed, or there is nothing to learn from.
    """
    data, kind = config.data, target_kind(config)
    splits_found = _splits(config)
    (train_folder, train), (test_folder, test) = ((split.folder, split.annotations) for split in splits_found)
    for folder in (train_folder, test_folder):
        if not folder.is_dir():
            raise RequestError(f"there is no image folder {printable(folder)}")
    _check_categories(train, test)
    labels = class_labels(train, data.classes)
    augment = config.augment
    if isinstance(augment, SegmentationAugment):
        kept = covered_images(train, labels, augment.fewest_pixels)
    else:
        kept = trainable_images(train)
    if not kept:
        raise RequestError(f"{printable(train.path)} has no objects to learn from")
    _check_test(test, labels, kind)
    if kind == "segmentation" and len(labels) >= IGNORED:
        raise RequestError(
            f"{train.path} has {len(labels)} categories, and DeepLabV3's targets take at most {IGNORED - 1}"
        )
    reading = data.turn, data.background
    splits = (
        Scenes(train_folder, train, kept, labels, kind, training_transform(augment), config.seed, *reading),
        Scenes(test_folder, test, test.images, labels, kind, evaluation_transform(augment), None, *reading),
    )
    pictures = [
        (f"{split}/{image.file_name}", folder / image.file_name)
        for split, folder, annotated in (("train", train_folder, train), ("test", test_folder, test))
        for image in annotated.images
    ]
    fingerprint = joined(
        whole_files_fingerprint("annotations", [file for split in splits_found for file in split.files]),
        files_fingerprint(pictures),
    )
    facts: dict[str, Any] = {
        "train": len(splits[0]),
        "test": len(splits[1]),
        "left_out": len(train.images) - len(kept),
        "degenerate_boxes": train.degenerate,
        "objects": object_count(train, kept),
    }
    published = {"train": data.train_size, "test": data.test_size}
    differing = any(facts[split] != size for split, size in published.items() if size)
    facts |= {"published": published, "as_published": not differing and not data.is_own}
    classes = data.expected_classes if data.classes == "coco" else len(labels) + 1
    names = {labels[i]: name for i, name in train.categories.items() if i in labels}
    return DetectData(*splits, labels, classes, names, facts, tuple(_remarks(data, facts)), fingerprint)


def _check_categories(train: Annotations, test: Annotations) -> None:
    """Raises RequestError where a category of the test set is none of training, or has another name there."""
    for number, name in test.categories.items():
        known = train.categories.get(number)
        if known is None:
            raise RequestError(f"{test.path} has categories that {train.path} lacks, such as {number}, {name}")
        if known.strip().lower() != name.strip().lower():
            raise RequestError(f"category {number} is {known} in {train.path}, and {name} in {test.path}")


def _check_test(test: Annotations, labels: Mapping[int, int], kind: str) -> None:
    """Raises RequestError where nothing could be evaluated, or a mask would make pycocotools read foreign memory."""
    if not test.images:
        raise RequestError(f"{test.path} has no image")
    counted = numpy.isin(test.objects.categories, list(labels)) & (test.objects.crowds == 0)
    if not counted.any():
        raise RequestError(f"{test.path} has no object of the classes, so that there is nothing to evaluate")
    if kind == "boxes":
        return
    for image in test.images:
        for entry in test.objects.get(image.id, ()):
            problem = segmentation_problem(entry.get("segmentation"), image.height, image.width)
            if problem:
                raise RequestError(f"{test.path}: annotation {given_id(entry)} {problem}")


def _remarks(data: Data, facts: Mapping[str, Any]) -> Iterator[str]:
    if not data.is_own:
        for split, published in facts["published"].items():
            if published and facts[split] != published:
                yield f"{data.name} has {facts[split]:,} {split} images, the recipe's own data have {published:,}"
    if facts["degenerate_boxes"]:
        yield f"{facts['degenerate_boxes']:,} boxes without height or width are ignored"


def _splits(config: DetectConfig) -> tuple[Split, Split]:
    """Both splits as they lie on disk."""
    data = config.data
    if data.root is not None:
        return find_splits(data.root, data.test_share)
    root = config.data_dir / data.name
    if data.name == DIGIT_SCENES_NAME and not data.is_own:
        if config.dry_run and not root.exists():
            root = dry_run_folder() / data.name
        write_digit_scenes(root)
    elif not data.is_own and not root.is_dir():
        raise RequestError(
            f"there is no data folder {root}: COCO 2017 (cocodataset.org) is expected, with train2017/, val2017/, "
            f"annotations/instances_train2017.json and annotations/instances_val2017.json; or name your own folder "
            f"by --data.root, or files by --data.train-images, --data.train-annotations, --data.test-images and "
            f"--data.test-annotations"
        )
    files = (
        data.train_annotations or _annotation_file(root, "train"),
        data.test_annotations or _annotation_file(root, "val"),
    )
    folders = data.train_images or root / "train2017", data.test_images or root / "val2017"
    first, second = (
        Split(folder, read_annotations(file), (file,)) for folder, file in zip(folders, files, strict=True)
    )
    return first, second


def _annotation_file(root: Path, split: str) -> Path:
    return root / "annotations" / f"instances_{split}2017.json"


def check_every_image(data: DetectData, workers: int | None) -> int:
    """Loads every image and target of both splits once; RequestError names the first bad one."""
    read = 0
    for split in (data.train, data.test):
        plain = Scenes(
            split.folder,
            split.annotations,
            split.images,
            split.labels,
            split.kind,
            v2.Identity(),
            None,
            split.turn,
            split.background,
        )
        for batch in loaded(evaluation_loader(plain, 1, 1, 0, workers)):
            read += int((batch.positions >= 0).sum())
    return read


@dataclass(frozen=True)
class AspectRatioOrder:
    """An epoch's order in which `group_size` consecutive images have similar aspect ratios.

    A function of (seed, epoch), for any number of processes. The bins are those of torchvision's reference with factor
    3: seven edges from 1/2 to 2, evenly apart in their logarithm.

    Attributes:
        order: of the images without groups.
        bins: of each image.
        group_size: images in a row.
    """

    order: EpochOrder
    bins: tuple[int, ...]
    group_size: int

    @property
    def batch_size(self) -> int:
        """Images of a step."""
        return self.order.batch_size

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.order.seed

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch."""
        return self.order.steps_per_epoch

    def global_batches(self, epoch: int, first_step: int) -> Iterator[list[int]]:
        """The images of each step; what does not fill a group is filled up by the first images of its bin."""
        waiting: dict[int, list[int]] = {}
        seen: dict[int, list[int]] = {}
        ordered: list[int] = []
        for image in self.order.indices(epoch).tolist():
            row = waiting.setdefault(self.bins[image], [])
            row.append(image)
            seen.setdefault(self.bins[image], []).append(image)
            if len(row) == self.group_size:
                ordered += row
                row.clear()
        for number, row in sorted(waiting.items()):
            if row:
                again = seen[number] * self.group_size
                ordered += (row + again)[: self.group_size]
        for step in range(first_step, self.steps_per_epoch):
            yield ordered[step * self.batch_size : (step + 1) * self.batch_size]


def training_order(config: DetectConfig, data: DetectData) -> EpochOrder | AspectRatioOrder:
    """The order of the training images; RequestError if they do not fill one batch."""
    order = EpochOrder(len(data.train), config.batch_size, config.seed, config.drop_last)
    if config.group_size == 1:
        return order
    edges = torch.logspace(-1, 1, 7, base=2)
    ratios = torch.tensor([image.width / image.height for image in data.train.images])
    return AspectRatioOrder(order, tuple(torch.bucketize(ratios, edges, right=True).tolist()), config.group_size)
