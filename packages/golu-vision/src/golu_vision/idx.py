"""MNIST's own file format, IDX: a file of images and one of labels for each split, compressed by gzip or not."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from torch import Tensor

from golu_core.training import RequestError
from golu_core.training.messages import printable
from golu_core.training.storage import regular_bytes

_UINT8 = 8
_LONGEST_HEADER = 16
_SPLITS = {"train": "train", "test": "t10k"}
Split = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class IdxData:
    """A data set in this format.

    Attributes:
        title: The name that people know.
        torchvision: The name of torchvision's class, which is also the folder that it writes.
        hub: A copy on the Hub.
        more: Where else to get it.
        classes: The class names, in the order of the labels.
    """

    title: str
    torchvision: str
    hub: str
    more: str
    classes: tuple[str, ...]


IDX_DATA = {
    "mnist": IdxData("MNIST", "MNIST", "ylecun/mnist", "", tuple(map(str, range(10)))),
    "fashion": IdxData(
        "Fashion-MNIST",
        "FashionMNIST",
        "zalando-datasets/fashion_mnist",
        ", or on Debian and Ubuntu install dataset-fashion-mnist and pass --data-dir /usr/share/datasets",
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
}
"""By the value of `--data.source`."""


def read_idx_data(source: str, folder: Path, download: bool) -> tuple[Split, Split]:
    """Return both splits: (N, 3, H, W) uint8 images with three equal channels, and (N,) int64 labels.

    Args:
        source: A key of `IDX_DATA`.
        folder: The folder of the data set. The files lie there or where torchvision puts them.
        download: Let torchvision download the data set first.

    Raises:
        RequestError: A file is missing or malformed; the message says where to put it.
    """
    data = IDX_DATA[source]
    if download:
        _download(data, folder)
    found = idx_folder(folder)
    if found is None:
        raise RequestError(
            f"{data.title} is not in {printable(folder)}: put its four files train-images-idx3-ubyte and so on there, "
            f"compressed by gzip or not, or pass --data.download{data.more}, or name a local or hub data set by "
            f"--data.hub {data.hub}"
        )
    return _read_split(found, "train"), _read_split(found, "test")


def idx_folder(folder: Path) -> Path | None:
    """Return where the files of training images lie, the folder itself or below it; None if there are none."""
    below = [folder, folder / "raw", *(folder / data.torchvision / "raw" for data in IDX_DATA.values())]
    return next((place for place in below if _file(place, "train", "images") is not None), None)


def _file(folder: Path, split: str, what: str) -> Path | None:
    stem = f"{_SPLITS[split]}-{what}-idx{3 if what == 'images' else 1}-ubyte"
    return next((folder / name for name in (stem, f"{stem}.gz") if (folder / name).is_file()), None)


def _download(data: IdxData, folder: Path) -> None:
    import torchvision

    try:
        getattr(torchvision.datasets, data.torchvision)(str(folder), download=True)
    except Exception as error:  # torchvision raises RuntimeError, urllib its own exceptions
        problem = str(error).strip().partition("\n")[0] or type(error).__name__
        raise RequestError(f"{data.title} could not be downloaded: {problem}") from None


def _read_split(folder: Path, split: str) -> Split:
    paths = [_file(folder, split, what) for what in ("images", "labels")]
    if paths[0] is None or paths[1] is None:
        missing = "images" if paths[0] is None else "labels"
        raise RequestError(f"{printable(folder)} has no {_SPLITS[split]}-{missing}-idx*-ubyte")
    images, labels = read_idx(paths[0]), read_idx(paths[1])
    if images.dim() != 3 or labels.dim() != 1 or len(images) != len(labels):
        shapes = f"{tuple(images.shape)} and {tuple(labels.shape)}"
        raise RequestError(f"{printable(paths[0])} and {printable(paths[1])} do not belong together: shapes {shapes}")
    return images[:, None].expand(-1, 3, -1, -1).contiguous(), labels.long()


def read_idx(path: Path) -> Tensor:
    """Return an IDX file of bytes as uint8, with the shape that its header has.

    Raises:
        RequestError: It is not such a file, or is cut off.
    """
    content = regular_bytes(path)
    if content.startswith(b"\x1f\x8b"):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise RequestError(f"{printable(path)} is damaged: {error}") from None
    kind, dimensions = struct.unpack(">HBB", content[:4])[1:] if len(content) >= 4 else (0, 0)
    start = 4 + 4 * dimensions
    if kind != _UINT8 or not content.startswith(b"\0\0") or not 0 < start <= min(len(content), _LONGEST_HEADER):
        raise RequestError(f"{printable(path)} is not an IDX file of bytes")
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise RequestError(
            f"{printable(path)} has {len(content) - start:,} bytes after its header, which promises "
            f"{' x '.join(map(str, shape))}: it is cut off or damaged"
        )
    return torch.from_numpy(numpy.frombuffer(content, numpy.uint8, offset=start).reshape(shape).copy())
