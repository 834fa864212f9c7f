"""Find CelebA in its usual forms: the official archives, torchvision's folder, or Kaggle's copies."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from golu_core.training import RequestError
from golu_core.training.messages import printable
from golu_core.training.storage import LONGEST_PATH, excerpt, read_lines, subfolders

_PARTITIONS = ("list_eval_partition.txt", "list_eval_partition.csv")
_IMAGES = ("img_align_celeba", "img_align_celeba_png")
_PLACES = (".", "celeba", "CelebA", "Img", "Eval", "Anno")
_NAMED = 6


def find_celeba(root: Path) -> dict[str, list[Path]]:
    """Return the aligned images by the official partition: 0 for training, 1 (`valid`) for the test loss, as published.

    This function looks for images and partition in the folder itself, in `celeba` like torchvision, in the `Img` and
    `Eval` folders of the official archives, and, for Kaggle's copy, in a doubled `img_align_celeba/img_align_celeba`
    with a CSV file. Both the JPEG and the PNG images are accepted.

    Raises:
        RequestError: Something is missing; the message lists the contents of the folder and what is expected.
    """
    shown = printable(root)
    wanted = (
        f"img_align_celeba/*.jpg and list_eval_partition.txt are expected in {shown}, from "
        f"mmlab.ie.cuhk.edu.hk/projects/CelebA.html (torchvision's download from Google Drive often fails), "
        f"or --data.hub with an id or a local copy, or --data.images with your own folder"
    )
    if not root.is_dir():
        raise RequestError(f"there is no CelebA in {shown}: {wanted}")
    images = next((folder for folder in _image_folders(root)), None)
    if images is None:
        raise RequestError(f"there is no CelebA in {shown}, which has {_there(root)}: {wanted}{_archives(root)}")
    partition = next((path for place in _places(root) for n in _PARTITIONS if os.path.lexists(path := place / n)), None)
    if partition is None:
        raise RequestError(f"{shown} has no partition file, but {_there(root)}: {wanted}")
    chosen = _read_partition(partition)
    suffix = ".png" if images.name.endswith("_png") or not any(images.glob("*.jpg")) else ""
    named = {name if not suffix else str(Path(name).with_suffix(suffix)): kind for name, kind in chosen.items()}
    splits = {
        split: [images / name for name, kind in named.items() if kind == k] for split, k in (("train", 0), ("test", 1))
    }
    for split, paths in splits.items():
        if not paths:
            raise RequestError(f"{printable(partition)} names no image of the {split} split")
    there = {path.name for path in images.iterdir()}
    missing = [path for paths in splits.values() for path in paths if path.name not in there]
    if missing:
        further = f", and so are {len(missing) - 1:,} others" if len(missing) > 1 else ""
        raise RequestError(f"{printable(missing[0])} is missing, which {partition.name} names{further}")
    return splits


def _places(root: Path) -> Iterator[Path]:
    """Yield the folder, the subfolders that archives are usually unpacked to, and their subfolders."""
    for outer in _PLACES:
        for inner in _PLACES:
            place = root / outer / inner
            if place.is_dir():
                yield place


def _image_folders(root: Path) -> Iterator[Path]:
    for place in _places(root):
        for name in _IMAGES:
            folder = place / name
            doubled = folder / name
            if doubled.is_dir():
                yield doubled
            elif folder.is_dir():
                yield folder


def _there(root: Path) -> str:
    inside = [path.name for path in subfolders(root)] + [p.name for p in sorted(root.iterdir()) if p.is_file()]
    named = ", ".join(printable(name) for name in inside[:_NAMED])
    return f"{named}{' and more' if len(inside) > _NAMED else ''}" if inside else "nothing in it"


def _archives(root: Path) -> str:
    found = [path.name for place in _places(root) for path in sorted(place.glob("*.zip"))]
    return f"; unpack {printable(found[0])} first" if found else ""


def _read_partition(path: Path) -> Mapping[str, int]:
    chosen = {}
    for number, line in enumerate(read_lines(path, LONGEST_PATH), 1):
        words = line.replace(",", " ").split()
        if not words or (number == 1 and words[-1] == "partition"):
            continue
        if len(words) != 2 or words[1] not in ("0", "1", "2"):
            raise RequestError(
                f"{printable(path)}, line {number}: expected a file's name and 0, 1 or 2, got {excerpt(line)}"
            )
        chosen[words[0]] = int(words[1])
    return chosen
