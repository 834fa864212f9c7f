"""What is looked at before something is said of all data: all of it where that is cheap, else a random sample.

A sentence about data either holds for every sample, because every sample was looked at, or says `of 100 examined`.
"""

from __future__ import annotations

import io
import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from torch import Tensor

from ...regular_files import open_regular
from .images import decode, read_file

HEADERS = 20_000
"""How many headers of images are read at most: one or two seconds on a local disk."""
_PIXELS = 100
"""How many images are decoded at most: about a second for photos."""


def examined(count: int, most: int) -> list[int]:
    """Return the numbers below `count` that are looked at, in order: all of them, or `most` at random.

    They are the same in every process and run. Evenly spaced numbers would not do: files are sorted by name, and what
    they have in common often repeats.

    >>> examined(3, 100), len(examined(1000, 100))
    ([0, 1, 2], 100)
    """
    return list(range(count)) if count <= most else sorted(random.Random(0).sample(range(count), most))


def of_examined(looked_at: int, count: int) -> str:
    """Return what to add to a statement about `count` samples: nothing if all of them were looked at.

    >>> of_examined(100, 1000), of_examined(1000, 1000)
    (' of 100 examined', '')
    """
    return "" if looked_at >= count else f" of {looked_at:,} examined"


class Header(NamedTuple):
    """What an image file states before its pixels.

    Attributes:
        width, height: In pixels, before it is turned as its EXIF data say.
        may_have_color: False for a gray format; otherwise the pixels decide.
    """

    width: int
    height: int
    may_have_color: bool

    @property
    def shorter(self) -> int:
        """The shorter side in pixels."""
        return min(self.width, self.height)


def header_of(image: Path | bytes, name: str) -> Header:
    """Read the header of an image without decoding it.

    Args:
        image: Its file or its content.
        name: For messages.

    Raises:
        RequestError: It cannot be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = open_regular(image) if isinstance(image, Path) else io.BytesIO(image)
            with content, Image.open(content) as opened:
                mode = opened.mode
                is_gray = mode in ("1", "L", "LA", "La", "F") or mode.startswith("I")
                return Header(*opened.size, not is_gray)
    except Exception:  # Pillow raises many kinds; what decodes all the same is taken, and the rest is named
        pixels = decode(image if isinstance(image, bytes) else read_file(image), name)
        return Header(pixels.shape[-1], pixels.shape[-2], True)


@dataclass(frozen=True)
class Color:
    """Whether images have color.

    Attributes:
        found: Whether one of those examined has.
        examined: How many were.
        count: How many images there are.
    """

    found: bool
    examined: int
    count: int

    @property
    def is_excluded(self) -> bool:
        """Whether no image has color, because every one of them was examined."""
        return not self.found and self.examined >= self.count


def color_of(count: int, header: Callable[[int], Header], pixels: Callable[[int], Tensor]) -> Color:
    """Look for color in images, and stop at the first that has some.

    Random images are decoded first. If they are all gray, headers are read: a gray format cannot have color, and of the
    images in other formats further ones are decoded.

    Args:
        count: How many images there are.
        header: Gives an image's header by its number.
        pixels: Gives an image by its number, (3, H, W) uint8.

    Raises:
        RequestError: An image cannot be read.
    """

    def is_colored(number: int) -> bool:
        image = pixels(number)
        return bool((image != image[:1]).any())

    first = examined(count, _PIXELS)
    if any(map(is_colored, first)):
        return Color(True, len(first), count)
    decoded = set(first)
    headers = [number for number in examined(count, HEADERS) if number not in decoded]
    undecided = [number for number in headers if header(number).may_have_color]
    chosen = [undecided[place] for place in examined(len(undecided), _PIXELS)]
    looked_at = len(first) + len(headers) - len(undecided) + len(chosen)
    return Color(any(map(is_colored, chosen)), looked_at, count)
