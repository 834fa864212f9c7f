"""The image files in a folder, and the files that are skipped."""

from __future__ import annotations

import codecs
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..messages.errors import RequestError
from ..messages.text_sinks import printable
from ..storage.user_folders import NAMED, left_out, remark_on, visible_files
from .holdout import second_part

_SUFFIXES = "jpg jpeg jpe jfif png webp avif gif bmp tif tiff jp2 ppm pgm pbm"
EXTENSIONS = frozenset(f".{name}" for name in _SUFFIXES.split())
"""Of the files that are read as images, in any case."""


def image_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """The image files below a folder, and the other files, which are left out; both sorted, hidden ones in neither.

    Links to folders are followed, each folder once.

    Raises:
        RequestError: The folder or an image in it is missing.
    """
    if not folder.is_dir():
        raise RequestError(f"there is no image folder {printable(folder)}")
    files = visible_files(folder)
    images = [path for path in files if path.suffix.lower() in EXTENSIONS]
    others = [path for path in files if path.suffix.lower() not in EXTENSIONS]
    if not images:
        found = f"; it has {left_out(others)}" if others else ""
        raise RequestError(f"the folder {printable(folder)} has no image ({', '.join(sorted(EXTENSIONS))}){found}")
    return images, others


class NamedImages(NamedTuple):
    """Images as a person names them.

    Attributes:
        images: The path of each image, with its path relative to the folder that was passed, or its file name.
        remarks: Sentences on the files in folders that were omitted.
    """

    images: Sequence[tuple[Path, Path]]
    remarks: Sequence[str]


def named_images(words: Iterable[str]) -> NamedImages:
    """The images that words name: files, those in folders, and with `-` those that lines of standard input name.

    Raises:
        RequestError: A folder has no image, or standard input is not a list of paths.
    """
    images: list[tuple[Path, Path]] = []
    remarks: list[str] = []
    for word in words:
        if word == "-":
            listed = list(_listed_paths())
            images += ((path, Path(path.name)) for path in listed if not os.path.isdir(path))
            remarks += _remark_on_folders([path for path in listed if os.path.isdir(path)])
        elif os.path.isdir(word):
            found, others = image_files(Path(word))
            images += ((path, path.relative_to(word)) for path in found)
            remarks += remark_on(others, Path(word))
        else:
            images.append((Path(word), Path(Path(word).name)))
    return NamedImages(images, remarks)


def _listed_paths() -> Iterator[Path]:
    """The paths that lines of standard input name, in whatever encoding file names have here."""
    given = getattr(sys.stdin, "buffer", None)  # a stream that was put in its place may have none
    content: bytes = os.fsencode(sys.stdin.read()) if given is None else given.read()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise RequestError("the list of paths on standard input is UTF-16: pass it as UTF-8, one path a line")
    for line in content.removeprefix(codecs.BOM_UTF8).split(b"\n"):
        name = os.fsdecode(line)
        if name.endswith("\r") and not os.path.lexists(name):  # of a list that was written on Windows
            name = name[:-1]
        if name.strip():
            yield Path(name)


def _remark_on_folders(folders: Sequence[Path]) -> tuple[str, ...]:
    if not folders:
        return ()
    paths = "1 path" if len(folders) == 1 else f"{len(folders):,} paths"
    return (f"{paths} on standard input left out, as folders: {', '.join(map(printable, folders[:NAMED]))}",)


# what programs add to the name of a file that they copy, augment or cut into pieces
_AUGMENTED = "aug|flip|flipped|mirror|rot|rotated|crop|bright|noise|blur|frame|part|tile"
_ADDED = re.compile(
    rf"(\.rf\.[0-9a-f]+|[ _-]*\(\d+\)|[ _-]+(cop(y|ie)|kopie)([ _-]*\d+)?|[ _-]+({_AUGMENTED})[a-z]*[ _-]*\d*)$",
    re.IGNORECASE,
)


def group_name(path: Path) -> str:
    """What the names of near-duplicates have in common: `cat` for `cat (2).jpg`, `cat_flip.jpg`, `cat.rf.1f3a.jpg`."""
    name = path.stem
    while (shorter := _ADDED.sub("", name)) and shorter != name:
        name = shorter
    return name.lower()


def share_by_groups(paths: Sequence[Path], share: float) -> tuple[list[Path], list[Path]]:
    """Files in two parts, near-duplicate names on one side, chosen by the names alone: the same for every seed.

    Args:
        paths: The paths to split.
        share: The fraction of files in the second part, rounded to whole groups, at least one.
    """
    second = second_part([group_name(path) for path in paths], share)
    return [path for n, path in enumerate(paths) if n not in second], [paths[n] for n in sorted(second)]
