"""Check images and objects without decoding pixels, so that invalid data are refused before a run begins."""

from __future__ import annotations

import random
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy
from numpy.typing import NDArray
from PIL import Image as Pillow

from golu_core.training import RequestError
from golu_core.training.messages import printable
from golu_core.training.storage import open_regular

from .annotations import Annotations
from .scenes import Scenes
from .segmentations import outline_problem

_HEADERS = 10_000  # takes a second or two to read
_READERS = 8
_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)


def check_outlines(annotations: Annotations, which: NDArray[numpy.bool_]) -> None:
    """Check the segmentations of objects.

    Args:
        annotations: The split's annotations.
        which: (N,), True for each object to check.

    Raises:
        RequestError: A segmentation is missing or malformed; the message includes the annotation's id.
    """
    objects = annotations.objects
    for row in numpy.flatnonzero(which).tolist():
        image = annotations.images[objects.owners[row]]
        problem = outline_problem(objects.outline(row), image.height, image.width)
        if problem:
            raise RequestError(f"{printable(annotations.path)}: annotation {objects.given_id(row)} {problem}")


def check_headers(scenes: Scenes) -> None:
    """Compare the size in each image file's header with its annotation; for very many images, check a sample.

    Raises:
        RequestError: An image cannot be read or has a different size, as when it is loaded.
    """
    count = len(scenes)
    samples = range(count) if count <= _HEADERS else sorted(random.Random(0).sample(range(count), _HEADERS))
    with warnings.catch_warnings(), ThreadPoolExecutor(_READERS) as pool:
        warnings.simplefilter("ignore", Pillow.DecompressionBombWarning)
        agreeing = pool.map(lambda sample: _agrees(scenes, sample), samples)
        for sample, agrees in zip(samples, agreeing, strict=True):
            if not agrees:
                scenes.pixels(sample)  # decides, and reports the problem


def _agrees(scenes: Scenes, sample: int) -> bool:
    image = scenes.images[sample]
    try:
        with open_regular(scenes.folder / image.file_name) as file, Pillow.open(file) as picture:
            width, height = picture.size
            header: Any = picture.getexif() if scenes.apply_exif else {}
            sideways = header.get(_ORIENTATION) in _SIDEWAYS
    except Exception:  # Pillow raises various exceptions
        return False
    return ((width, height) if sideways else (height, width)) == (image.height, image.width)
