"""Find the images of a recipe and load them in batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from golu_core.training import Fingerprint, Purpose, RequestError, SampleKey, seeded
from golu_core.training.config import Background
from golu_core.training.data import (
    BatchDataset,
    Header,
    decode,
    encoded_images,
    evaluation_loader,
    generator,
    group_name,
    header_of,
    load_image_splits,
    loaded,
    read_file,
    split_training_data,
    write_digits,
)
from golu_core.training.storage import (
    check_files,
    dry_run_folder,
    encoded_fingerprint,
    files_fingerprint,
    joined,
    pixels_fingerprint,
    text_fingerprint,
)

from .config import Crop, Data, VisionConfig
from .folders import find_class_folders
from .idx import IDX_DATA, idx_folder, read_idx_data
from .transforms import evaluation_transform, fitted, training_transform


class ImageBatch(NamedTuple):
    """The images of one process in one step.

    Attributes:
        images: (N, 3, H, W) uint8, or normalized float32.
        labels: (N,) int64.
        positions: (N,) int64, position in the epoch's order, or -1 for an image that only fills the batch.
    """

    images: Tensor
    labels: Tensor
    positions: Tensor


class EncodedImages:
    """Labeled images that are read one at a time, from class folders or a hub data set."""

    def __init__(
        self, read: Callable[[int], tuple[bytes, str]], labels: Sequence[int], background: Background = "white"
    ) -> None:
        self.read = read
        self.labels = labels
        self.background = background

    def __len__(self) -> int:
        return len(self.labels)

    def decoded(self, index: int) -> Tensor:
        """Return an image as (3, H, W) uint8; raise RequestError with its name if it cannot be decoded."""
        return decode(*self.read(index), background=self.background)

    def header(self, index: int) -> Header:
        """Return an image's header; raise RequestError with its name if it cannot be read."""
        return header_of(*self.read(index))

    def name(self, index: int) -> str:
        """Return an image's file, or its index if it has none."""
        return str(index)


class TransformedImages:
    """A data set that decodes and transforms each image when a batch asks for it."""

    in_memory = False

    def __init__(self, source: EncodedImages, transform: Callable[[Tensor], Tensor], seed: int | None) -> None:
        self.source = source
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.source)

    def image(self, key: SampleKey) -> Tensor:
        """Return one image; in training, its random numbers depend only on (seed, epoch, position)."""
        if self.seed is None:
            return self.transform(self.source.decoded(key.sample))
        with seeded(self.seed, Purpose.AUGMENT, key.epoch, key.position):
            return self.transform(self.source.decoded(key.sample))

    def __getitems__(self, keys: list[SampleKey]) -> ImageBatch:
        images = torch.stack([self.image(key) for key in keys])
        labels = torch.tensor([self.source.labels[key.sample] for key in keys])
        return ImageBatch(images, labels, torch.tensor([key.position for key in keys]))


class StoredImages:
    """A data set in memory, whose training images are shifted and flipped one batch at a time.

    Args:
        images: (N, 3, size, size) uint8.
        labels: (N,) int64.
        seed: Seed for the augmentation; None disables it.
        pad: Maximum shift in pixels; pixels from outside the image are black before normalization.
        flip: Flip each image with probability 0.5.
    """

    in_memory = True

    def __init__(self, images: Tensor, labels: Tensor, seed: int | None, pad: int = 0, flip: bool = False) -> None:
        self.labels = labels
        self.seed = seed
        self.pad = pad if seed is not None else 0
        self.flip = flip and seed is not None
        self.size = images.shape[-1]
        self.images = torch.nn.functional.pad(images, [self.pad] * 4)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, keys: list[SampleKey]) -> ImageBatch:
        indices, epochs, positions = (torch.tensor(column) for column in zip(*keys, strict=True))
        images = self.images[indices]
        if self.seed is not None:
            images = self._augmented(images, int(epochs[0]), positions)
        return ImageBatch(images, self.labels[indices], positions)

    def _augmented(self, images: Tensor, epoch: int, positions: Tensor) -> Tensor:
        assert self.seed is not None
        parts = positions.div(_DRAWN_AT_ONCE, rounding_mode="floor").unique()
        draws = torch.cat([_epoch_draws(self.seed, epoch, part) for part in parts.tolist()])
        draws = draws[positions - int(parts[0]) * _DRAWN_AT_ONCE]
        offsets = (draws[:, :2] * (2 * self.pad + 1)).long()
        span = torch.arange(self.size)
        columns = offsets[:, 1:] + span
        if self.flip:
            columns = torch.where(draws[:, 2:] < 0.5, columns, columns.flip(1))
        rows = offsets[:, :1] + span
        number = torch.arange(len(images))[:, None, None, None]
        channel = torch.arange(3)[None, :, None, None]
        return images[number, channel, rows[:, None, :, None], columns[:, None, None, :]]


_DRAWN_AT_ONCE = 1 << 16


@lru_cache(maxsize=4)
def _epoch_draws(seed: int, epoch: int, part: int) -> Tensor:
    """Draw three uniform numbers for each of 65,536 positions of an epoch, a function of (seed, epoch, position)."""
    return torch.rand(_DRAWN_AT_ONCE, 3, generator=generator(seed, Purpose.AUGMENT, epoch, part))


@dataclass(frozen=True)
class ImageData:
    """The two splits of a recipe.

    Attributes:
        classes: The class names, in the order of the labels.
        facts: The fields for result.json: the sizes, and the published sizes.
        remarks: Differences from the published sizes, as sentences.
        fingerprint: Checksum of names and contents.
        test_name: A function that maps the index of a test image to its file, or to the index if it has none.
    """

    train: BatchDataset
    test: BatchDataset
    classes: tuple[str, ...]
    facts: dict[str, Any]
    remarks: tuple[str, ...]
    fingerprint: Fingerprint
    test_name: Callable[[int], str]


def load_data(config: VisionConfig) -> ImageData:
    """Find both splits, and decode them if the data are kept in memory.

    Raises:
        RequestError: Images are missing or malformed; the message describes the expected layout.
    """
    data = config.data
    if config.dry_run and data.source == "digits" and not (config.data_dir / data.name).exists():
        config = dataclasses.replace(config, data_dir=dry_run_folder())
    found = _sources(config)
    published = {"train": data.train_images, "test": data.test_images, "classes": data.classes}
    counts = {"train": len(found.train), "test": len(found.test), "classes": len(found.classes)}
    differing = tuple(
        f"{data.title} has {counts[key]:,} {key} {'' if key == 'classes' else 'images'}".rstrip()
        + f", the recipe's own data have {published[key]:,}"
        for key in counts
        if counts[key] != published[key]
    )
    if config.holdout == "validation":
        found = _held_out(found)
        counts |= {"train": len(found.train), "test": len(found.test)}
    facts = {**counts, "published": published, "as_published": not differing and not data.is_own}
    remarks = (*found.remarks, *differing)
    name = found.test.name if isinstance(found.test, EncodedImages) else str
    if not data.in_memory:
        train = _as_encoded(found.train)
        test = TransformedImages(_as_encoded(found.test), evaluation_transform(data), seed=None)
        return ImageData(_augmented(train, config), test, found.classes, facts, remarks, found.fingerprint, name)
    stored, fingerprint = _in_memory(found, data)
    if isinstance(config.augment, Crop):
        training: BatchDataset = StoredImages(
            stored[0].images, stored[0].labels, config.seed, config.augment.pad, config.augment.flip
        )
    else:
        training = _augmented(_as_encoded(stored[0]), config)
    return ImageData(training, stored[1], found.classes, facts, remarks, fingerprint, name)


def _augmented(source: EncodedImages, config: VisionConfig) -> TransformedImages:
    return TransformedImages(source, training_transform(config.data, config.augment), config.seed)


def _in_memory(found: _Sources, data: Data) -> tuple[tuple[StoredImages, StoredImages], Fingerprint]:
    """Return both splits decoded at the network's image size, and a fingerprint of the original pixels."""
    splits, digests = [], []
    for source, shorter in ((found.train, data.size), (found.test, data.resize)):
        encoded = _as_encoded(source)
        kept: list[Tensor] = []

        def labeled(encoded: EncodedImages = encoded, kept: list[Tensor] = kept, shorter: int = shorter) -> Any:
            for index, label in enumerate(encoded.labels):
                image = encoded.decoded(index)
                kept.append(fitted(image, data, shorter))
                yield str(label), image

        digests.append(pixels_fingerprint(labeled()))
        splits.append(StoredImages(torch.stack(kept), torch.tensor(encoded.labels), seed=None))
    names = "\n".join(found.classes)
    return (splits[0], splits[1]), Fingerprint(lambda: text_fingerprint("pixels", [names, *digests]))


class _Chosen(EncodedImages):
    """Some of the images of another source."""

    def __init__(self, source: EncodedImages, chosen: Sequence[int]) -> None:
        labels = [source.labels[n] for n in chosen]
        super().__init__(lambda index: source.read(chosen[index]), labels, source.background)
        self.source, self.chosen = source, chosen

    def decoded(self, index: int) -> Tensor:
        return self.source.decoded(self.chosen[index])

    def header(self, index: int) -> Header:
        return self.source.header(self.chosen[index])

    def name(self, index: int) -> str:
        return self.source.name(self.chosen[index])


class _Pixels(EncodedImages):
    def __init__(self, stored: StoredImages) -> None:
        super().__init__(lambda index: (b"", str(index)), stored.labels.tolist())
        self.stored = stored

    def decoded(self, index: int) -> Tensor:
        return self.stored.images[index]


def _as_encoded(source: EncodedImages | StoredImages) -> EncodedImages:
    return source if isinstance(source, EncodedImages) else _Pixels(source)


@dataclass(frozen=True)
class _Sources:
    """Both splits as found, the class names, the fingerprints of all images and of those for training, and notes."""

    train: EncodedImages | StoredImages
    test: EncodedImages | StoredImages
    classes: tuple[str, ...]
    fingerprint: Fingerprint
    fingerprint_of_train: Fingerprint
    remarks: tuple[str, ...] = ()


def _held_out(found: _Sources) -> _Sources:
    """Return the training images in two parts, the second for `--holdout validation`; no test image is read."""
    train = found.train
    if isinstance(train, StoredImages):
        labels = train.labels.tolist()
        kept = split_training_data([str(number) for number in range(len(train))], labels)
        parts: list[Any] = [StoredImages(train.images[part], train.labels[part], seed=None) for part in kept]
    else:
        kept = split_training_data([group_name(Path(train.name(number))) for number in range(len(train))], train.labels)
        parts = [_Chosen(train, part) for part in kept]
    return dataclasses.replace(found, train=parts[0], test=parts[1], fingerprint=found.fingerprint_of_train)


def _sources(config: VisionConfig) -> _Sources:
    data, data_dir, reads_test = config.data, config.data_dir, config.holdout == "test"
    if data.root is not None and idx_folder(data.root) is not None:
        return _idx(data.source if data.source in IDX_DATA else "mnist", data.root, download=False)
    if data.root is not None:
        return _folders(data.root, data, reads_test)
    if data.hub is not None:
        return _hub(data.hub, data)
    if data.source == "cifar10":
        return _cifar10(data_dir / data.name, data.download)
    if data.source in IDX_DATA:
        return _idx(data.source, data_dir / data.name, data.download)
    if data.source == "digits":
        return _folders(write_digits(data_dir / data.name), data, reads_test)
    return _folders(data_dir / data.name, data, reads_test)


# ---------------------------------------------------------------------------------------------------- class folders


def _folders(root: Path, data: Data, reads_test: bool) -> _Sources:
    found = find_class_folders(root, data.test_share, reads_test)
    train, test = _FolderImages(found.train, data.background), _FolderImages(found.test, data.background)
    of_train = [named for named in found.names if named[0].startswith("train/")]
    fingerprints = files_fingerprint(found.names), files_fingerprint(of_train)
    return _Sources(train, test, found.classes, *fingerprints, found.remarks)


class _FolderImages(EncodedImages):
    def __init__(self, listed: list[tuple[Path, int]], background: Background) -> None:
        self.paths = [str(path) for path, _ in listed]  # strings, since workers copy a million paths
        super().__init__(self._read, [label for _, label in listed], background)

    def _read(self, index: int) -> tuple[bytes, str]:
        return read_file(Path(self.paths[index])), self.paths[index]

    def header(self, index: int) -> Header:
        return header_of(Path(self.paths[index]), self.paths[index])

    def name(self, index: int) -> str:
        return self.paths[index]


# -------------------------------------------------------------------------------------- CIFAR-10, IDX files and the hub


def _cifar10(folder: Path, download: bool) -> _Sources:
    """Both splits by torchvision; RequestError with the expected path if they are missing."""
    import torchvision

    if folder.is_dir():
        check_files(folder)
    try:
        splits = [torchvision.datasets.CIFAR10(str(folder), train, download=download) for train in (True, False)]
    except Exception as error:  # torchvision raises RuntimeError, urllib its own exceptions
        problem = str(error).strip().partition("\n")[0] or type(error).__name__
        raise RequestError(
            f"CIFAR-10 is not in {folder} ({problem}): put the folder cifar-10-batches-py from cifar-10-python.tar.gz "
            f"there, from www.cs.toronto.edu/~kriz/cifar.html, or pass --data.download, or name a local or hub data "
            f"set by --data.hub uoft-cs/cifar10"
        ) from None
    pixels = [torch.from_numpy(split.data).permute(0, 3, 1, 2).contiguous() for split in splits]
    return _of_pixels(pixels, [torch.tensor(split.targets) for split in splits], splits[0].classes)


def _idx(source: str, folder: Path, download: bool) -> _Sources:
    splits = read_idx_data(source, folder, download)
    classes = IDX_DATA[source].classes
    beyond = max(int(labels.max()) for _, labels in splits)
    if beyond >= len(classes):
        classes = tuple(map(str, range(beyond + 1)))
    return _of_pixels([pixels for pixels, _ in splits], [labels for _, labels in splits], classes)


def _of_pixels(pixels: Sequence[Tensor], labels: Sequence[Tensor], classes: Sequence[str]) -> _Sources:
    """Return splits that torchvision has decoded: (N, 3, H, W) uint8 and (N,) int64 each."""
    stored = [StoredImages(*split, seed=None) for split in zip(pixels, labels, strict=True)]

    def fingerprint(parts: Sequence[StoredImages]) -> Fingerprint:
        images = (
            (str(int(label)), image) for part in parts for label, image in zip(part.labels, part.images, strict=True)
        )
        return Fingerprint(lambda: pixels_fingerprint(images))

    return _Sources(stored[0], stored[1], tuple(classes), fingerprint(stored), fingerprint(stored[:1]))


def _hub(name: str, data: Data) -> _Sources:
    train, test, image, remarks = load_image_splits(name, data.revision)
    label, classes = _class_column(name, train, test)
    encoded = [
        EncodedImages(encoded_images(rows, image, f"{name} {split}"), rows[label][:], data.background)
        for split, rows in (("train", train), ("test", test))
    ]
    fingerprints = [encoded_fingerprint(part.read, part.labels) for part in encoded]
    return _Sources(encoded[0], encoded[1], classes, joined(*fingerprints), fingerprints[0], remarks)


def _class_column(name: str, train: Any, test: Any) -> tuple[str, tuple[str, ...]]:
    """Return label column and class names; raise RequestError if splits differ in classes or labels are missing."""
    import datasets

    label = next((n for n, kind in train.features.items() if isinstance(kind, datasets.ClassLabel)), None)
    if label is None:
        raise RequestError(f"{name!r} has the columns {', '.join(train.features)}: a class label is needed")
    if test.features.get(label) != train.features[label]:
        raise RequestError(f"{name!r} has other classes in its test images than in its training images")
    for split, rows in (("training", train), ("test", test)):
        unknown = next((row for row, value in enumerate(rows[label][:]) if value is None or value < 0), None)
        if unknown is not None:
            raise RequestError(f"{name!r} has {split} images without a class, the first is number {unknown}")
    return label, tuple(train.features[label].names)


def check_every_image(data: ImageData, device_size: int, workers: int | None) -> Iterator[int]:
    """Load every image of both splits once and yield the number so far; raise RequestError for the first bad one."""
    read = 0
    for split in (data.train, data.test):
        if isinstance(split, TransformedImages):
            split = TransformedImages(split.source, _shape_alone, seed=None)
        for batch in loaded(evaluation_loader(split, device_size, 1, 0, workers)):
            read += int((batch.positions >= 0).sum())
            yield read


def _shape_alone(image: Tensor) -> Tensor:
    return torch.tensor(image.shape)
