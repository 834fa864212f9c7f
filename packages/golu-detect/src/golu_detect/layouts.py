"""Find images and annotations in the user's own folder: COCO, Roboflow, CVAT, Label Studio, YOLO, or PASCAL VOC."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from golu_core.training import RequestError
from golu_core.training.data import EXTENSIONS, share_by_groups
from golu_core.training.messages import printable
from golu_core.training.storage import is_hidden, subfolders

from .annotations import Annotations, read_annotations
from .voc import read_voc, voc_splits
from .yolo import read_yolo, yolo_splits

_TEST_NAMES = ("val", "valid", "validation", "test")
_NAMED = 6
_FOR_CLASSES = "; a folder for each class is for golu-vision"


@dataclass(frozen=True)
class DatasetSplit:
    """One split on disk.

    Attributes:
        folder: The folder with the images.
        annotations: The split's annotations.
        files: The annotation files.
    """

    folder: Path
    annotations: Annotations
    files: tuple[Path, ...]


def find_splits(root: Path, test_share: float | None) -> tuple[DatasetSplit, DatasetSplit]:
    """Find both splits of a folder in any of the known layouts.

    - COCO: `annotations/instances_train2017.json`, `train2017/`, and so on; or `instances_train.json` with `images/`.
    - Roboflow: `train/_annotations.coco.json` next to its images, and `valid/` or `test/` likewise.
    - CVAT and Label Studio: one JSON file for all images, of which `test_share` are held out for testing.
    - YOLO: `data.yaml` with `train`, `val`, and `names`; labels in `labels/` next to `images/`.
    - PASCAL VOC: `Annotations/*.xml`, `JPEGImages/`, `ImageSets/Main/train.txt`, and `val.txt`.

    Raises:
        RequestError: No layout matches; the message lists the contents of the folder.
    """
    if not root.is_dir():
        raise RequestError(f"there is no data folder {printable(root)}")
    pair = _coco_pair(root)
    if pair is not None:
        return _refuse_share(root, test_share, (_coco_split(root, pair[0]), _coco_split(root, pair[1])))
    for splits, read in ((yolo_splits, read_yolo), (voc_splits, read_voc)):
        found = splits(root)
        if found is not None:
            first, second = (DatasetSplit(*read(root, listed)) for listed in found)
            return _refuse_share(root, test_share, (first, second))
    single = _single_file(root)
    if single is not None:
        return _shared(root, single, test_share)
    raise RequestError(
        f"{printable(root)} has no annotations in a known layout (COCO, Roboflow, CVAT, Label Studio, YOLO, PASCAL "
        f"VOC); it has {_there(root)}{_FOR_CLASSES if _has_class_folders(root) else ''}"
    )


def _refuse_share(
    root: Path, share: float | None, splits: tuple[DatasetSplit, DatasetSplit]
) -> tuple[DatasetSplit, DatasetSplit]:
    if share is not None:
        raise RequestError(f"{printable(root)} has a test split: leave out --data.test-share")
    return splits


def _coco_pair(root: Path) -> tuple[Path, Path] | None:
    """Return the annotation files of training and test set, or None if one is missing."""
    for train, test in _coco_names(root):
        if train.is_file() and test.is_file():
            return train, test
    return None


def _coco_names(root: Path) -> Iterator[tuple[Path, Path]]:
    notes = root / "annotations"
    yield notes / "instances_train2017.json", notes / "instances_val2017.json"
    for test in _TEST_NAMES:
        yield notes / "instances_train.json", notes / f"instances_{test}.json"
        yield notes / "train.json", notes / f"{test}.json"
        yield root / "train" / "_annotations.coco.json", root / test / "_annotations.coco.json"
        yield root / "train.json", root / f"{test}.json"


def _coco_split(root: Path, file: Path) -> DatasetSplit:
    annotations = read_annotations(file)
    return DatasetSplit(_image_folder(root, file, annotations), annotations, (file,))


def _image_folder(root: Path, file: Path, annotations: Annotations) -> Path:
    """Return the folder in which all image names of the file exist; raise RequestError if there is none."""
    split = file.stem.removeprefix("instances_")
    candidates = [
        root / split,
        root / "images" / split,
        root / "images",
        root / "images" / "default",
        file.parent,
        root,
    ]
    if not annotations.images:
        return candidates[0]
    names = [image.file_name for image in annotations.images]
    whole = next((folder for folder in candidates if all((folder / name).is_file() for name in names)), None)
    if whole is not None:
        return whole
    missing = {folder: [name for name in names if not (folder / name).is_file()] for folder in candidates}
    fullest = min(candidates, key=lambda folder: len(missing[folder]))
    if len(missing[fullest]) < len(names):
        lacking = f"{len(missing[fullest]):,} of {len(names):,} images"
        raise RequestError(
            f"{printable(fullest)} lacks {lacking} of {printable(file)}, such as {printable(missing[fullest][0])}"
        )
    raise RequestError(
        f"the image {printable(names[0])} of {printable(file)} is in none of "
        f"{', '.join(printable(folder) for folder in dict.fromkeys(candidates))}"
    )


def _single_file(root: Path) -> Path | None:
    """Return the only COCO file of a folder: CVAT's `instances_default.json` or Label Studio's `result.json`."""
    for folder in (root / "annotations", root):
        found = [path for path in sorted(folder.glob("*.json")) if not is_hidden(path.name)] if folder.is_dir() else []
        if len(found) == 1:
            return found[0]
    return None


def _shared(root: Path, file: Path, share: float | None) -> tuple[DatasetSplit, DatasetSplit]:
    if share is None:
        raise RequestError(
            f"{printable(file)} has all images and no test split: keep some for the test by --data.test-share 0.1"
        )
    annotations = read_annotations(file)
    folder = _image_folder(root, file, annotations)
    by_path = {Path(image.file_name): image for image in annotations.images}
    parts = share_by_groups(list(by_path), share)
    first, second = (
        DatasetSplit(folder, annotations.of_images([by_path[path] for path in part]), (file,)) for part in parts
    )
    return first, second


def _has_class_folders(root: Path) -> bool:
    """Return whether there are images in `train/CLASS`, as for a classifier."""
    inside = subfolders(root / "train") if (root / "train").is_dir() else []
    return any(path.suffix.lower() in EXTENSIONS for folder in inside for path in folder.iterdir())


def _there(root: Path) -> str:
    inside = [path.name for path in subfolders(root)] + [p.name for p in sorted(root.iterdir()) if p.is_file()]
    named = ", ".join(printable(name) for name in inside[:_NAMED])
    return f"{named}{' and more' if len(inside) > _NAMED else ''}" if inside else "nothing in it"
