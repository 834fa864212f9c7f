"""Find a recipe's images, resize them, and draw the noise to add to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import center_crop, resize

from golu_core.training import Fingerprint, Purpose, RequestError, SampleKey
from golu_core.training.data import (
    Color,
    Header,
    color_of,
    decode,
    encoded_images,
    evaluation_loader,
    generator,
    group_name,
    header_of,
    image_files,
    load_image_splits,
    loaded,
    read_file,
    said_of_copies,
    split_training_data,
    write_digits,
)
from golu_core.training.messages import printable
from golu_core.training.runs import finite
from golu_core.training.storage import (
    dry_run_folder,
    encoded_fingerprint,
    files_fingerprint,
    joined,
    pixels_fingerprint,
    remark_on,
)

from .celeba import find_celeba
from .config import OWN_PICTURES, Data, DiffusionConfig


class NoisyBatch(NamedTuple):
    """The images of one process in one step, and their noise.

    Attributes:
        images: (N, C, size, size) uint8.
        steps: (N,) int64, steps of the forward process, counted from 0.
        noise: (N, C, size, size) float32, standard normal; empty if the device draws it.
        positions: (N,) int64, position in the order, or -1 for an image that only fills the batch.
    """

    images: Tensor
    steps: Tensor
    noise: Tensor
    positions: Tensor


@dataclass(frozen=True)
class ImageSource:
    """Encoded images.

    Attributes:
        count: Number of images.
        read: A function that returns the contents and name of an image by its index.
        header: A function that returns an image's header by its index.
    """

    count: int
    read: Callable[[int], tuple[bytes, str]]
    header: Callable[[int], Header]


class NoisyImages:
    """A split as a data set. Steps and noise of an image depend only on (seed, epoch, position).

    In evaluation they depend on (seed, image), so that all networks are compared on the same noise.

    Args:
        source: The source of the images.
        data: The data settings, for size and flip.
        steps: Number of steps, T.
        seed: The run's seed.
        training: Flip each image with probability 0.5, if `data.flip` is set.
        draws: Number of noise draws per image in evaluation.
        noisy: Also draw the noise.
    """

    def __init__(
        self,
        source: ImageSource,
        data: Data,
        steps: int,
        seed: int,
        *,
        training: bool,
        draws: int = 1,
        noisy: bool = True,
    ) -> None:
        self.source = source
        self.data = data
        self.steps = steps
        self.seed = seed
        self.training = training
        self.draws = draws
        self.noisy = noisy
        self.in_memory = data.name == "digits" and data.images is None and data.hub is None
        self._decoded: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return self.source.count * self.draws

    def image(self, number: int) -> Tensor:
        """Return an image as (C, size, size) uint8; raise RequestError with its name if it cannot be decoded."""
        if number in self._decoded:
            return self._decoded[number]
        encoded, name = self.source.read(number)
        image = as_trained_on(decode(encoded, name, background=self.data.background), self.data)
        if self.in_memory:
            self._decoded[number] = image
        return image

    def _seeded(self, random: torch.Generator, key: SampleKey) -> torch.Generator:
        if self.training:
            return generator(self.seed, Purpose.DIFFUSE, key.epoch, key.position, again=random)
        return generator(self.seed, Purpose.TEST_DIFFUSE, key.sample, again=random)

    def __getitems__(self, keys: list[SampleKey]) -> NoisyBatch:
        shape, random = (len(keys), *self.data.shape), torch.Generator()
        pixels, noise = torch.empty(shape, dtype=torch.uint8), torch.empty(shape if self.noisy else 0)
        steps = torch.empty(len(keys), dtype=torch.int64)
        for row, key in enumerate(keys):
            image = self.image(key.sample // self.draws)
            self._seeded(random, key)
            if self.training and self.data.flip and torch.rand((), generator=random) < 0.5:
                image = image.flip(-1)
            pixels[row] = image
            steps[row] = torch.randint(self.steps, (), generator=random)
            if self.noisy:
                noise[row].normal_(generator=random)
        return NoisyBatch(pixels, steps, noise, torch.tensor([key.position for key in keys]))


def as_trained_on(image: Tensor, data: Data) -> Tensor:
    """Convert (3, H, W) uint8 to the channels and the size of the data: (C, size, size) uint8."""
    return fitted(image if data.channels == 3 else gray(image), data.size)


def gray(image: Tensor) -> Tensor:
    """Convert (3, H, W) uint8 to (1, H, W) like Pillow's `L` (ITU-R 601-2); gray images keep their values."""
    red, green, blue = image.int()
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).to(torch.uint8)[None]


def fitted(image: Tensor, size: int) -> Tensor:
    """Resize the shorter side of an image to `size` by averaging areas, and crop the center.

    Args:
        image: (C, H, W) uint8.

    Returns:
        The resized image, (C, size, size) uint8.
    """
    height, width = image.shape[-2:]
    scale = size / min(height, width)
    target = [max(size, round(height * scale)), max(size, round(width * scale))]
    if scale < 1:
        rows, columns = _area_weights(height, target[0]), _area_weights(width, target[1])
        image = (rows @ image.float() @ columns.t()).round().clamp(0, 255).to(torch.uint8)
    elif scale > 1:
        image = resize(image, target, antialias=True)
    cropped: Tensor = center_crop(image, [size, size])
    return cropped


@lru_cache(maxsize=16)
def _area_weights(inputs: int, outputs: int) -> Tensor:
    """Return the share of each input pixel in each output pixel: (outputs, inputs), where each row sums to 1."""
    edges = torch.arange(outputs + 1, dtype=torch.float64) * inputs / outputs
    pixels = torch.arange(inputs, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], pixels + 1) - torch.maximum(edges[:-1, None], pixels)
    return (overlap.clamp(min=0) * outputs / inputs).float()


def scaled(images: Tensor, device: torch.device) -> Tensor:
    """Convert (N, C, H, W) uint8 to float32 in [-1, 1]."""
    return images.to(device, non_blocking=True).float() / 127.5 - 1


def pixels_of(images: Tensor) -> Tensor:
    """Return images (N, C, H, W) in [-1, 1] as uint8; values outside are clamped.

    Raises:
        RunFailure: Some values are NaN or infinite, which would otherwise become black.
    """
    finite(images, "the drawn images")
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()


# ----------------------------------------------------------------------------------------------------------- the splits


@dataclass(frozen=True)
class DiffusionData:
    """The two splits of a recipe.

    Attributes:
        facts: The fields for result.json: the sizes, and the published sizes.
        remarks: Differences from the published sizes, as sentences.
        fingerprint: Checksum of names and contents.
    """

    train: NoisyImages
    test: NoisyImages
    facts: dict[str, Any]
    remarks: tuple[str, ...]
    fingerprint: Fingerprint

    @property
    def color(self) -> Color:
        """Whether the images of both splits have color."""
        sources, background = (self.train.source, self.test.source), self.train.data.background

        def at(number: int) -> tuple[ImageSource, int]:
            return (sources[0], number) if number < sources[0].count else (sources[1], number - sources[0].count)

        def header(number: int) -> Header:
            source, place = at(number)
            return source.header(place)

        def pixels(number: int) -> Tensor:
            source, place = at(number)
            return decode(*source.read(place), background=background)

        return color_of(sum(source.count for source in sources), header, pixels)


def load_data(config: DiffusionConfig) -> DiffusionData:
    """Find both splits; write the digits first if they are missing.

    Raises:
        RequestError: Images or the partition file are missing; the message tells the user which files to put where.
    """
    data, steps = config.data, config.noise.steps
    sources, fingerprint, said = _files_of(config) if data.hub is None else _rows_of(data.hub, config)
    train = NoisyImages(sources["train"], data, steps, config.seed, training=True, noisy=not config.device_noise)
    test = NoisyImages(sources["test"], data, steps, config.seed, training=False, draws=config.eval_noise_draws)
    published = {"train": data.train_size, "test": data.test_size}
    found = {"train": train.source.count, "test": test.source.count}
    differing = {split: count for split, count in published.items() if count and found[split] != count}
    differing = differing if config.holdout == "test" else {}
    remarks = said + tuple(
        f"{data.title} has {found[split]:,} {split} images, the recipe's own data have {count:,}"
        for split, count in differing.items()
        if data.images is None
    )
    facts = {**found, "published": published, "as_published": not differing and not data.is_own}
    if train.in_memory:  # images from this program count as equal whatever their encoding
        fingerprint = Fingerprint(lambda: pixels_fingerprint(_named_images(train, test)))
    loaded = DiffusionData(train, test, facts, remarks, fingerprint)
    if data.is_own and data.channels == 3:
        loaded = replace(loaded, remarks=(*remarks, *_said_of_gray(loaded.color)))
    return loaded


def _said_of_gray(color: Color) -> tuple[str, ...]:
    if color.found:
        return ()
    seen = (
        "the images have no color"
        if color.is_excluded
        else f"none of {color.examined:,} images examined has color, of {color.count:,}"
    )
    return (f"{seen}: --data.channels 1 trains and draws in gray",)


def _named_images(*splits: NoisyImages) -> Iterator[tuple[str, Tensor]]:
    for name, split in zip(("train", "test"), splits, strict=True):
        for number in range(split.source.count):
            yield name, decode(*split.source.read(number))


_Found = tuple[dict[str, ImageSource], Fingerprint, tuple[str, ...]]
"""The images of both splits, their fingerprint, and notes. With `--holdout validation`, both are training images."""


def _files_of(config: DiffusionConfig) -> _Found:
    listed, said = _listed(config)
    if config.holdout == "validation":
        kept, paths = split_training_data([group_name(path) for path in listed["train"]]), listed["train"]
        listed = {"train": [paths[n] for n in kept.train], "test": [paths[n] for n in kept.validation]}
    fingerprint = files_fingerprint([(f"{split}/{p.name}", p) for split, paths in listed.items() for p in paths])
    return {split: _files(paths) for split, paths in listed.items()}, fingerprint, said


def _rows_of(hub: str, config: DiffusionConfig) -> _Found:
    train, test, column, said = load_image_splits(hub)
    rows: dict[str, tuple[Any, Sequence[int]]] = {"train": (train, range(len(train))), "test": (test, range(len(test)))}
    if config.holdout == "validation":
        kept = split_training_data([str(number) for number in range(len(train))])
        rows = {"train": (train, kept.train), "test": (train, kept.validation)}
    sources = {
        split: _rows(encoded_images(images, column, f"{hub} {split}"), numbers)
        for split, (images, numbers) in rows.items()
    }
    fingerprint = joined(*(encoded_fingerprint(part.read, range(part.count)) for part in sources.values()))
    return sources, fingerprint, said


def _listed(config: DiffusionConfig) -> tuple[dict[str, list[Path]], tuple[str, ...]]:
    """Return the files of both splits, and notes about them."""
    data, root, reads_test = config.data, config.data_dir / config.data.name, config.holdout == "test"
    if data.images is not None:
        return _own(data.images, data.test_images, reads_test)
    if data.name == "digits":
        if config.dry_run and not root.exists():
            root = dry_run_folder() / data.name
        write_digits(root)
        return {split: image_files(root / split)[0] for split in ("train", "test")}, ()
    if data.name == OWN_PICTURES:
        if not root.is_dir():
            raise RequestError(f"there is no image folder {printable(root)}: pass your own folder with --data.images")
        return _own(root, None, reads_test)
    return find_celeba(root), ()


def _own(folder: Path, test_folder: Path | None, reads_test: bool) -> tuple[dict[str, list[Path]], tuple[str, ...]]:
    """Return the user's own images: with a test folder, or with every tenth image of one folder held out."""
    paths, others = image_files(folder)
    remarks = remark_on(others, folder)
    if test_folder is not None:
        tests, others = image_files(test_folder)
        remarks += remark_on(others, test_folder)
        split = {"train": paths, "test": tests}
    else:
        split = {"train": [path for n, path in enumerate(paths) if n % 10 != 9], "test": paths[9::10]}
        if not split["test"]:
            raise RequestError(
                f"{printable(folder)} has {len(paths)} images: at least 10 are needed, or a test folder by "
                f"--data.test-images"
            )
    train, test = ([(path, 0) for path in split[name]] for name in ("train", "test"))
    return split, remarks + said_of_copies(train, test if reads_test else [])


def _files(paths: Sequence[Path]) -> ImageSource:
    names = [str(path) for path in paths]  # strings, which are cheap to copy to each loader process

    def read(number: int) -> tuple[bytes, str]:
        return read_file(Path(names[number])), names[number]

    return ImageSource(len(names), read, lambda number: header_of(Path(names[number]), names[number]))


def _rows(read: Callable[[int], tuple[bytes, str]], numbers: Sequence[int]) -> ImageSource:
    return ImageSource(len(numbers), lambda n: read(numbers[n]), lambda n: header_of(*read(numbers[n])))


def check_every_image(data: DiffusionData, workers: int | None) -> Iterator[int]:
    """Decode every image once and yield the number read so far; raise RequestError for the first invalid one."""
    read = 0
    for split in (data.train, data.test):
        once = NoisyImages(split.source, split.data, 1, 0, training=False)
        for batch in loaded(evaluation_loader(once, 16, 1, 0, workers)):
            read += int((batch.positions >= 0).sum())
            yield read
