"""Image files to tensors."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from .errors import RequestError
from .ownership import MADE_BY

try:  # several times faster than Pillow, but torchvision means to move it to another package
    from torchvision.io import decode_image
except ImportError:
    decode_image = None


EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif"})
"""Of the files that are taken for images where a folder is searched."""


def image_files(folder: Path) -> list[Path]:
    """The image files below a folder, sorted; RequestError if the folder or an image in it is missing."""
    if not folder.is_dir():
        raise RequestError(f"there is no image folder {folder}")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS)
    if not paths:
        raise RequestError(f"the folder {folder} has no image ({', '.join(sorted(EXTENSIONS))})")
    return paths


def read_file(path: Path) -> bytes:
    """The content of an image file; RequestError with its name if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise RequestError(f"the image {path} cannot be read: {error.strerror}") from None


def read_image(path: Path, upright: bool = True) -> Tensor:
    """An image file as (3, H, W) uint8 RGB; RequestError with its name if it cannot be read or decoded."""
    return decode(read_file(path), str(path), upright)


def decode(encoded: bytes, name: str, upright: bool = True) -> Tensor:
    """A JPEG, PNG, WebP, GIF or other image as (3, H, W) uint8 RGB.

    Args:
        encoded: the file's content.
        name: for the message.
        upright: turned as its EXIF data say.

    Raises:
        RequestError: it cannot be decoded whole; the message has its name.
    """
    if decode_image is not None:
        try:
            buffer = torch.frombuffer(bytearray(encoded), dtype=torch.uint8)
            decoded: Tensor = decode_image(buffer, "RGB", apply_exif_orientation=upright)
            if decoded.dtype == torch.uint8:
                return decoded
        except (RuntimeError, ValueError):
            pass  # CMYK, 16 bit, palettes, other formats, or damage
    return _decode_by_pillow(encoded, name, upright)


def _decode_by_pillow(encoded: bytes, name: str, upright: bool) -> Tensor:
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            turned = ImageOps.exif_transpose(image) if upright else image
            if turned.mode.startswith("I"):  # 16 bit: Pillow would cut instead of scaling
                turned = turned.point(lambda value: value / 256).convert("L")
            decoded: Tensor = pil_to_tensor(turned.convert("RGB"))
            return decoded
    except Exception as error:  # Pillow raises many kinds
        raise RequestError(f"the image {name} cannot be decoded: {error}") from None


def png_writer(picture: Image.Image) -> Callable[[Path], None]:
    """A function that writes a picture as PNG with our mark in it, so that it may be replaced."""
    text = PngInfo()
    text.add_text("Software", MADE_BY)
    return lambda path: picture.save(path, format="png", pnginfo=text)
