"""A folder of drawn images that grows while they are drawn, and to which the same command adds what is missing.

samples.json     which weights and flags the images are drawn with; written before the first image
000000.png ...   one file per image, as drawn; each appears whole or not at all
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
    """Keep other processes from drawing into a folder; RequestError if one does already."""
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
        path: Where it is, or will be.
        settings: What the images follow from, by the names of flags.

    Raises:
        RequestError: It holds something else, or images that were drawn otherwise.
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
        """The file of an image."""
        return self.path / f"{number:06d}.png"

    def present(self, count: int) -> list[int]:
        """The numbers below `count` whose images are there; RequestError if somebody else's file has such a name."""
        if not self._is_marked:
            return []
        sweep_partials(self.path)
        found = [number for number in range(count) if self.file(number).exists()]
        for number in found:
            check_output(self.file(number))
        return found

    def write(self, number: int, image: Tensor) -> None:
        """Write an image, (C, H, W) uint8, as it is."""
        if not self._is_marked:
            self.path.mkdir(parents=True, exist_ok=True)
            sweep_partials(self.path)
            write_json(self.path / MARKER, {"format": _FORMAT, **self._settings})
            self._is_marked = True
        write_output(self.file(number), png_writer(to_pil_image(image)))

    def read(self, number: int) -> Tensor:
        """An image that is there, (C, H, W) uint8; RequestError if it cannot be read."""
        try:
            with open_regular(self.file(number)) as content, Image.open(content) as picture:
                found: Tensor = pil_to_tensor(picture)
                return found
        except Exception as error:  # Pillow raises many kinds
            raise RequestError(
                f"{printable(self.file(number))} cannot be read: {error}; remove it, and it is drawn again"
            ) from None
