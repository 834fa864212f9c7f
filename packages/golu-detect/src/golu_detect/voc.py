"""PASCAL VOC's layout: an XML file for each image, and lists of the images of each split."""

from __future__ import annotations

import math
import os
from pathlib import Path
from xml.etree import ElementTree

from golu_core.training import RequestError
from golu_core.training.messages import printable
from golu_core.training.storage import LONGEST_PATH, excerpt, read_lines, read_xml

from .annotations import Annotations, Image
from .packed import PackedObjects
from .segmentations import Entry

_TESTS = ("val", "test")
_SIDES = ("xmin", "ymin", "xmax", "ymax")


def voc_splits(root: Path) -> tuple[list[Path], list[Path]] | None:
    """Return the annotation files of both splits; None if the folder has no `Annotations` with XML files.

    Raises:
        RequestError: The lists in `ImageSets/Main` are missing, or name an image without annotations.
    """
    notes = root / "Annotations"
    if not notes.is_dir() or not any(notes.glob("*.xml")):
        return None
    lists = root / "ImageSets" / "Main"
    test = next((lists / f"{name}.txt" for name in _TESTS if os.path.lexists(lists / f"{name}.txt")), None)
    if not os.path.lexists(lists / "train.txt") or test is None:
        raise RequestError(f"{printable(lists)} must have train.txt and val.txt, which name the images of each split")
    return _listed(notes, lists / "train.txt"), _listed(notes, test)


def _listed(notes: Path, path: Path) -> list[Path]:
    names = [line.split()[0] for line in read_lines(path, LONGEST_PATH) if line.strip()]
    found = [notes / f"{name}.xml" for name in names]
    missing = [file for file in found if not os.path.lexists(file)]
    if missing:
        raise RequestError(f"{printable(missing[0])} is missing, which {printable(path)} names")
    return found


def read_voc(root: Path, files: list[Path]) -> tuple[Path, Annotations, tuple[Path, ...]]:
    """Return the image folder, the annotations in COCO's format, and the annotation files.

    Categories are numbered from 1 in the alphabetical order of all names in `Annotations`, the same for both splits.
    Boxes are in whole pixels counted from 1, with both ends included. Objects marked `difficult` become crowds, which
    are ignored in training and evaluation, as in VOC's own evaluation.

    Raises:
        RequestError: A file is malformed; the message includes its name.
    """
    notes = root / "Annotations"
    names = sorted({name for path in notes.glob("*.xml") for name in _names(path)})
    numbers = {name: number for number, name in enumerate(names, 1)}
    listed = []
    entries: list[Entry] = []
    count = 0
    for image_id, path in enumerate(files, 1):
        tree = read_xml(path)
        width, height = (_number(tree, f"size/{name}", path) for name in ("width", "height"))
        if width < 1 or height < 1:
            raise RequestError(f"{printable(path)} has an image of {width:g} x {height:g} pixels")
        name = (tree.findtext("filename") or f"{path.stem}.jpg").strip()
        listed.append(Image(image_id, name, int(height), int(width)))
        for entry in tree.iter("object"):
            count += 1
            left, top, right, bottom = (
                _number(entry, f"bndbox/{side}", path) for side in ("xmin", "ymin", "xmax", "ymax")
            )
            box = [left - 1, top - 1, right - left + 1, bottom - top + 1]
            if min(box[2:]) < 0 or left > width or top > height:
                raise RequestError(f"{printable(path)} has the impossible box {left:g} {top:g} {right:g} {bottom:g}")
            entries.append(
                {
                    "id": count,
                    "given_id": f"{path.name}:{count}",
                    "image_id": image_id,
                    "category_id": numbers[(entry.findtext("name") or "").strip()],
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int((entry.findtext("difficult") or "0").strip() == "1"),
                    "segmentation": None,
                }
            )
    categories = {number: name for name, number in numbers.items()}
    folder = next((root / name for name in ("JPEGImages", "images") if (root / name).is_dir()), notes)
    objects = PackedObjects.of(entries, [image.id for image in listed])
    return folder, Annotations(notes, tuple(listed), objects, categories), tuple(files)


def _names(path: Path) -> list[str]:
    return [(entry.findtext("name") or "").strip() for entry in read_xml(path).iter("object")]


def _number(element: ElementTree.Element, place: str, path: Path) -> float:
    text = element.findtext(place)
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise RequestError(f"{printable(path)} has {place} {excerpt(repr(text))}, which is not a number")
    return value
