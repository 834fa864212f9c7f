"""A folder of sampled images that grows during sampling; the same command adds the missing ones.

samples.json     the weights and flags of the images; written before the first image
000000.png ...   one file per image, as sampled; each appears complete or not at all
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import Timeout
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

from golu_core.training import RequestError
from golu_core.training.data import png_writer
from golu_core.training.messages import printable
from golu_core.training.storage import (
    FolderLock,
    check_output,
    is_vacant,
    open_regular,
    read_marker,
    sweep_partials,
    write_json,
    write_output,
)

MARKER = "samples.json"
_FORMAT = "golu-samples/1"


@contextmanager
def only_here(folder: Path) -> Iterator[None]:
    """Keep other processes from writing to a folder; raise RequestError if one already does."""
    lock = FolderLock(folder)
    try:
        lock.acquire(0)
    except Timeout:
        raise RequestError(f"another process draws into {printable(folder)}: name another --out") from None
    try:
        yield
    finally:
        lock.release()


class DrawnFolder:
    """The folder of `--out`.

    Args:
        path: The folder, which need not exist.
        settings: The settings that determine the images, by flag.

    Raises:
        RequestError: The folder has other contents, or images with different settings.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self._settings = dict(settings)
        there = read_marker(path, MARKER)
        self._is_marked = there is not None
        if there is not None:
            self._check_settings(there)
        elif not is_vacant(path):
            raise RequestError(f"{printable(path)} holds files that were not drawn by this command: name a new --out")

    def _check_settings(self, there: Mapping[str, Any]) -> None:
        if there.get("format") != _FORMAT:
            raise RequestError(f"{printable(self.path / MARKER)} was written by another version: name a new --out")
        for name in [name for name in {**self._settings, **there} if name != "format"]:
            before, now = there.get(name), self._settings.get(name)
            if before != now:
                shown = "other weights" if name == "weights" else f"{name} {before}, not {now}"
                raise RequestError(
                    f"the images in {printable(self.path)} were drawn with {shown}: name a new --out, or repeat the "
                    f"command that began them"
                )

    def file(self, number: int) -> Path:
        """Return the file of an image."""
        return self.path / f"{number:06d}.png"

    def present(self, count: int) -> list[int]:
        """Return the indices below `count` of existing images; raise RequestError if another program wrote one."""
        if not self._is_marked:
            return []
        sweep_partials(self.path)
        found = [number for number in range(count) if self.file(number).exists()]
        for number in found:
            check_output(self.file(number))
        return found

    def write(self, number: int, image: Tensor) -> None:
        """Write an image, (C, H, W) uint8, without changes."""
        if not self._is_marked:
            self.path.mkdir(parents=True, exist_ok=True)
            sweep_partials(self.path)
            write_json(self.path / MARKER, {"format": _FORMAT, **self._settings})
            self._is_marked = True
        write_output(self.file(number), png_writer(to_pil_image(image)))

    def read(self, number: int) -> Tensor:
        """Read an existing image, (C, H, W) uint8; raise RequestError if it cannot be read."""
        try:
            with open_regular(self.file(number)) as content, Image.open(content) as picture:
                found: Tensor = pil_to_tensor(picture)
                return found
        except Exception as error:  # Pillow raises various exceptions
            raise RequestError(
                f"{printable(self.file(number))} cannot be read: {error}; remove it, and it is drawn again"
            ) from None
