"""Find a recipe's images and annotations, and check that they match."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
from torchvision.transforms import v2

from golu_core.training import Fingerprint, RequestError
from golu_core.training.data import evaluation_loader, group_name, loaded, split_training_data
from golu_core.training.messages import printable
from golu_core.training.storage import (
    dry_run_folder,
    files_fingerprint,
    joined,
    remark_on,
    visible_files,
    whole_files_fingerprint,
)

from .annotations import Annotations, Image, read_annotations
from .checks import check_headers, check_outlines
from .coco import IGNORED, class_labels, covered_images, learned_objects, object_count, trainable_images
from .config import DetectConfig, SegmentationAugment
from .layouts import DatasetSplit, find_splits
from .samples import DIGIT_SCENES_NAME, write_digit_scenes
from .scenes import Scenes, evaluation_transform, training_transform


@dataclass(frozen=True)
class DetectData:
    """The two splits of a recipe.

    Attributes:
        labels: Class labels by category id.
        classes: Number of classes, including the background.
        names: Class names by label.
        facts: The fields for result.json: the sizes, and the published sizes.
        remarks: Differences from the published sizes, and data that were left out, as sentences.
        fingerprint: Checksum of annotations and images.
    """

    train: Scenes
    test: Scenes
    labels: Mapping[int, int]
    classes: int
    names: Mapping[int, str]
    facts: dict[str, Any]
    remarks: tuple[str, ...]
    fingerprint: Fingerprint


def _target_kind(config: DetectConfig) -> str:
    """Return the type of the targets: `segmentation`, `boxes`, or `masks`."""
    return {"deeplabv3": "segmentation", "maskrcnn": "masks"}.get(config.model.kind, "boxes")


def load_data(config: DetectConfig) -> DetectData:
    """Find both splits and read their annotations; write the digit scenes first if they are missing.

    Raises:
        RequestError: A file is missing or malformed, or nothing remains to train on.
    """
    data, kind = config.data, _target_kind(config)
    splits_found = _splits(config)
    in_use = splits_found if config.holdout == "test" else splits_found[:1]
    (train_folder, train), (test_folder, test) = ((in_use[n].folder, in_use[n].annotations) for n in (0, -1))
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
    tested: Sequence[Image] = test.images
    if config.holdout == "validation":
        tested = _held_out(train)
        held = set(tested)
        kept = [image for image in kept if image not in held]
    _check_test(test, tested, labels)
    if kind == "segmentation" and len(labels) >= IGNORED:
        raise RequestError(
            f"{train.path} has {len(labels)} categories, and DeepLabV3's targets hold at most {IGNORED - 1}"
        )
    if kind != "boxes":
        check_outlines(train, learned_objects(train, kept, labels, kind))
        check_outlines(test, numpy.ones(len(test.objects.owners), bool))  # pycocotools uses all of them
    reading = data.apply_exif, data.background
    splits = (
        Scenes(train_folder, train, kept, labels, kind, training_transform(augment), config.seed, *reading),
        Scenes(test_folder, test, tested, labels, kind, evaluation_transform(augment), None, *reading),
    )
    for split in splits:
        check_headers(split)
    fingerprint = _fingerprint(in_use)
    facts: dict[str, Any] = {
        "train": len(splits[0]),
        "test": len(splits[1]),
        "left_out": len(train.images) - len(kept) - (len(tested) if train is test else 0),
        "degenerate_boxes": train.degenerate,
        "objects": object_count(train, kept),
    }
    published = {"train": data.train_size, "test": data.test_size}
    differing = any(facts[split] != size for split, size in published.items() if size)
    facts |= {"published": published, "as_published": not differing and not data.is_own}
    classes = data.expected_classes if data.classes == "coco" else len(labels) + 1
    names = {labels[i]: name for i, name in train.categories.items() if i in labels}
    remarks = [*_remarks(config, facts), *_notes(train, "training")]
    remarks += _notes(test, "test") if config.holdout == "test" else []
    remarks += _unused_files(splits_found) if data.is_own else []
    return DetectData(*splits, labels, classes, names, facts, tuple(remarks), fingerprint)


def _held_out(train: Annotations) -> list[Image]:
    """Return the training images to evaluate on with `--holdout validation`; no test image is read."""
    kept = split_training_data([group_name(Path(image.file_name)) for image in train.images])
    return [train.images[number] for number in kept.validation]


def _fingerprint(splits: Sequence[DatasetSplit]) -> Fingerprint:
    pictures = [
        (f"{name}/{image.file_name}", split.folder / image.file_name)
        for name, split in zip(("train", "test"), splits, strict=False)
        for image in split.annotations.images
    ]
    files = [file for split in splits for file in split.files]
    return joined(whole_files_fingerprint("annotations", files), files_fingerprint(pictures))


def _check_categories(train: Annotations, test: Annotations) -> None:
    """Raise RequestError if the training set lacks a category of the test set, or has it under a different name."""
    for number, name in test.categories.items():
        known = train.categories.get(number)
        if known is None:
            raise RequestError(f"{test.path} has categories that {train.path} lacks, such as {number}, {name}")
        if known.strip().lower() != name.strip().lower():
            raise RequestError(f"category {number} is {known} in {train.path}, and {name} in {test.path}")


def _check_test(test: Annotations, images: Sequence[Image], labels: Mapping[int, int]) -> None:
    """Raise RequestError if there is nothing to evaluate."""
    if not images:
        raise RequestError(f"{test.path} has no image")
    counted = numpy.isin(test.objects.categories, list(labels)) & (test.objects.crowds == 0)
    wanted = set(images)
    counted &= numpy.array([image in wanted for image in test.images])[test.objects.owners]
    if not counted.any():
        raise RequestError(f"{test.path} has no object of the classes, so there is nothing to evaluate")


def _remarks(config: DetectConfig, facts: Mapping[str, Any]) -> Iterator[str]:
    data = config.data
    if not data.is_own and config.holdout == "test":
        for split, published in facts["published"].items():
            if published and facts[split] != published:
                yield f"{data.name} has {facts[split]:,} {split} images, the recipe's own data have {published:,}"
    if facts["degenerate_boxes"]:
        yield f"{facts['degenerate_boxes']:,} boxes without height or width are ignored"


def _notes(annotations: Annotations, split: str) -> list[str]:
    return [f"{note} ({split} images)" for note in annotations.notes]


def _unused_files(splits: Sequence[DatasetSplit]) -> Iterator[str]:
    """Yield notes on files in the image folders that have no annotation."""
    images = [split.folder / image.file_name for split in splits for image in split.annotations.images]
    used = {os.path.normpath(path) for path in (*images, *(file for split in splits for file in split.files))}
    for folder in dict.fromkeys(split.folder for split in splits):
        others = (path for path in visible_files(folder) if os.path.normpath(path) not in used)
        yield from remark_on(others, folder, "used")


def _splits(config: DetectConfig) -> tuple[DatasetSplit, DatasetSplit]:
    """Return both splits as they are on disk."""
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
        DatasetSplit(folder, read_annotations(file), (file,)) for folder, file in zip(folders, files, strict=True)
    )
    return first, second


def _annotation_file(root: Path, split: str) -> Path:
    return root / "annotations" / f"instances_{split}2017.json"


def check_every_image(data: DetectData, workers: int | None) -> int:
    """Load every image and target of both splits once; raise RequestError for the first invalid one."""
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
            split.apply_exif,
            split.background,
        )
        for batch in loaded(evaluation_loader(plain, 1, 1, 0, workers)):
            read += int((batch.positions >= 0).sum())
    return read
