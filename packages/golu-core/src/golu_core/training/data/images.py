"""Load image files as tensors: every file is decoded correctly, or rejected by name.

JPEG goes through torchvision's libjpeg-turbo, which is several times faster than Pillow. Everything else goes through
Pillow: torchvision's PNG decoder ends the whole process on some damaged files.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from ...regular_files import regular_bytes
from ..config.fields import Background
from ..messages.errors import RequestError
from ..messages.text_sinks import complain, printable
from ..storage.ownership import MADE_BY

try:  # torchvision means to move it to another package
    from torchvision.io import ImageReadMode, decode_jpeg
except ImportError:
    decode_jpeg = None

_MOST_PIXELS = 178_956_970
"""Pillow's own limit, above which an image may be an attack on memory; 512 MiB as RGB."""
_JPEG = b"\xff\xd8\xff"
# markers of JPEG frames, which hold the size; C4, C8 and CC are others
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_MAX_SAMPLE_VALUE = 281
_said: set[str] = set()


def read_file(path: Path) -> bytes:
    """Return the content of an image file; raise RequestError with its name if it cannot be read."""
    try:
        return regular_bytes(path)
    except OSError as error:
        raise RequestError(f"the image {printable(path)} cannot be read: {error.strerror}") from None
    except ValueError:  # the path has a NUL
        raise RequestError(f"the image {printable(path)} cannot be read: no file has such a name") from None


def read_image(path: Path, upright: bool = True, background: Background = "white") -> Tensor:
    """Read an image file as RGB, uint8 (3, H, W); raise RequestError with its name if it cannot be decoded."""
    return decode(read_file(path), str(path), upright, background)


def decode(encoded: bytes, name: str, upright: bool = True, background: Background = "white") -> Tensor:
    """Decode an image of any common format as RGB, uint8 (3, H, W).

    For an animation, the first frame is used, with one warning. 16-bit samples are scaled by the range that the file
    states.

    Args:
        encoded: The file's content.
        name: The image's name in messages.
        upright: Whether to apply the EXIF orientation.
        background: The background color of transparent pixels.

    Raises:
        RequestError: It cannot be decoded whole, is larger than `_MOST_PIXELS`, or its samples have no known range;
            the message has its name.
    """
    if encoded.startswith(_JPEG) and decode_jpeg is not None:
        _check_size(_jpeg_size(encoded), name)
        try:
            buffer = torch.frombuffer(bytearray(encoded), dtype=torch.uint8)
            decoded: Tensor = decode_jpeg(buffer, mode=ImageReadMode.RGB, apply_exif_orientation=upright)
            return decoded
        except (RuntimeError, ValueError):
            pass  # CMYK, or damage, of which Pillow says more
    return _decode_by_pillow(encoded, name, upright, background)


def _jpeg_size(encoded: bytes) -> tuple[int, int]:
    """Width and height that a JPEG's header states, (0, 0) where it cannot be found."""
    place = 2
    while place + 9 < len(encoded) and encoded[place] == 0xFF:
        marker = encoded[place + 1]
        if marker in _FRAMES:
            height = int.from_bytes(encoded[place + 5 : place + 7], "big")
            return int.from_bytes(encoded[place + 7 : place + 9], "big"), height
        standalone = marker == 0xFF or 0xD0 <= marker <= 0xD9  # fill bytes, and markers without a length
        place += 1 if marker == 0xFF else 2
        if not standalone:
            place += int.from_bytes(encoded[place : place + 2], "big")
    return 0, 0


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    if width * height > _MOST_PIXELS:
        raise RequestError(
            f"the image {printable(name)} has {width:,} x {height:,} pixels, and at most {_MOST_PIXELS:,} are decoded: "
            f"scale it down"
        )


def _decode_by_pillow(encoded: bytes, name: str, upright: bool, background: Background) -> Tensor:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # half of the limit
            with Image.open(io.BytesIO(encoded)) as image:
                _check_size(image.size, name)
                if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
                    _say_once("animation", f"{printable(name)} has several frames; the first of such a file is used")
                image.load()
                whole = _in_8_bits(image)
                turned = ImageOps.exif_transpose(whole) if upright else whole
                rgb: Tensor = pil_to_tensor(_opaque(turned, background))
                return rgb
    except RequestError:
        raise
    except _UnknownRange as error:
        raise RequestError(f"the image {printable(name)} {error}: convert it to 8 bits") from None
    except UnidentifiedImageError:
        raise RequestError(f"the image {printable(name)} cannot be decoded: it is of no known image format") from None
    except Image.DecompressionBombError:
        raise RequestError(
            f"the image {printable(name)} has more than {_MOST_PIXELS:,} pixels, the most that are decoded: "
            f"scale it down"
        ) from None
    except Exception as error:  # Pillow raises many kinds
        problem = printable(str(error)) or type(error).__name__
        raise RequestError(f"the image {printable(name)} cannot be decoded: {problem}") from None


class _UnknownRange(Exception):
    """Nobody knows which of its samples are white."""


def _in_8_bits(image: Image.Image) -> Image.Image:
    """The image with samples of 8 bits, its EXIF data kept; _UnknownRange where they have none."""
    if not (image.mode.startswith("I") or image.mode == "F"):
        return image
    samples = numpy.asarray(image)
    exif = image.getexif()
    largest = _largest_sample(image, samples)
    scaled = Image.fromarray(
        (samples.astype(numpy.float64) * (255.0 / largest)).clip(0, 255).round().astype(numpy.uint8)
    )
    scaled.getexif().update(exif)
    return scaled


def _largest_sample(image: Image.Image, samples: Any) -> float:
    """What the file states as white."""
    tags: Any = getattr(image, "tag_v2", {})
    stated = tags.get(_MAX_SAMPLE_VALUE)
    if stated:
        value = float(stated[0] if isinstance(stated, tuple) else stated)
        if value > 0:
            return value
    if image.mode in ("I", "F") and image.format != "PNG":
        kind = "32 bits" if image.mode == "I" else "floating point"
        raise _UnknownRange(f"has samples of {kind} and does not state their range")
    if image.format == "TIFF" and samples.max(initial=0) < 4096:
        raise _UnknownRange(
            f"has samples of 16 bits, none above {samples.max(initial=0)}, and no MaxSampleValue states their range"
        )
    return 65535.0


def _opaque(image: Image.Image, background: Background) -> Image.Image:
    """The image as RGB, its transparent pixels put on a color."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    layers = image.convert("RGBA")
    ground = Image.new("RGBA", layers.size, background)
    return Image.alpha_composite(ground, layers).convert("RGB")


def _say_once(kind: str, sentence: str) -> None:
    """A warning about a kind of file, from the main process or the first of its loaders."""
    worker = torch.utils.data.get_worker_info()
    if kind not in _said and (worker is None or worker.id == 0):
        _said.add(kind)
        complain(f"warning: {sentence}")


def png_writer(picture: Image.Image) -> Callable[[Path], None]:
    """A function that writes a picture as PNG with our mark in it, so that it may be replaced."""
    text = PngInfo()
    text.add_text("Software", MADE_BY)
    return lambda path: picture.save(path, format="png", pnginfo=text)
