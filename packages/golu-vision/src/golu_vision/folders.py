"""Class folders with images: find both splits of a data set, or refuse with a description of what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from golu_core.training import RequestError
from golu_core.training.data import EXTENSIONS, image_files, said_of_copies, share_by_groups
from golu_core.training.messages import printable
from golu_core.training.storage import is_hidden, remark_on, subfolders

TEST_FOLDERS = ("val", "valid", "validation", "test")
"""Names of folders for test images; the first one that exists is used."""
_NAMED = 5
Labeled = list[tuple[Path, int]]


@dataclass(frozen=True)
class ClassFolders:
    """The contents of class folders.

    Attributes:
        train, test: The file and label of each image.
        classes: The class names, in the order of the labels.
        names: The name of each file in a fingerprint, with its split and its class.
        remarks: Notes on files that were left out and on the folder of the test images, as sentences.
    """

    train: Labeled
    test: Labeled
    classes: tuple[str, ...]
    names: list[tuple[str, Path]]
    remarks: tuple[str, ...]


def find_class_folders(root: Path, test_share: float | None, reads_test: bool = True) -> ClassFolders:
    """Find both splits in a folder: `train/<class>` and one of TEST_FOLDERS, or `<class>` with a fraction held out.

    Args:
        root: The folder of the data set.
        test_share: Fraction of each class held out for testing if the folder has no split.
        reads_test: Whether test images are compared with the training images; otherwise they are only listed.

    Raises:
        RequestError: The folder has other contents; the message describes them and the expected layout.
    """
    shown = printable(root)
    layout = f"class folders with images are expected: {shown}/train/<class>/*.jpg and {shown}/val/<class>/*.jpg"
    if not root.is_dir():
        imagenet = "; ImageNet-1k: www.image-net.org, or the gated hub data set by --data.hub ILSVRC/imagenet-1k"
        further = imagenet if "imagenet" in root.name else "; pass your own folder with --data.root"
        raise RequestError(f"there is no data folder {shown}: {layout}{further}")
    tests = [name for name in TEST_FOLDERS if (root / name).is_dir()]
    if test_share is not None:
        return _shared(root, test_share, tests, reads_test)
    train = root / "train"
    if not train.is_dir() or not tests:
        raise RequestError(f"{shown} has no {'train' if tests else 'train or no val'} folder: {layout}{_seen(root)}")
    classes = _classes(train, layout)
    test_root = root / tests[0]
    surplus = {path.name for path in subfolders(test_root)} - set(classes)
    if surplus:
        named = ", ".join(printable(name) for name in sorted(surplus)[:_NAMED])
        raise RequestError(f"{printable(test_root)} has classes that {printable(train)} lacks: {named}")
    listed, others = {}, []
    for split, folder in (("train", train), ("test", test_root)):
        listed[split], left = _listed(folder, classes)
        others += left
    remarks = remark_on(others, root)
    if len(tests) > 1:
        remarks += (f"the test images are those of {printable(test_root)}; {', '.join(tests[1:])} is not used",)
    folders = {"train": train, "test": test_root}
    names = [
        (f"{split}/{path.relative_to(folders[split]).as_posix()}", path)
        for split in folders
        for path, _ in listed[split]
    ]
    remarks += said_of_copies(listed["train"], listed["test"] if reads_test else [])
    return ClassFolders(listed["train"], listed["test"], classes, names, remarks)


def _shared(root: Path, share: float, tests: Sequence[str], reads_test: bool) -> ClassFolders:
    """Split a folder by holding out a fraction of each class; files that belong together stay in the same split."""
    if tests or (root / "train").is_dir():
        raise RequestError(
            f"{printable(root)} has the folder {'train' if not tests else tests[0]}: --data.test-share is for class "
            f"folders without a split"
        )
    classes = _classes(root, f"class folders with images are expected in {printable(root)}")
    listed, others = _listed(root, classes)
    train: Labeled = []
    test: Labeled = []
    for label, name in enumerate(classes):
        paths = [path for path, of in listed if of == label]
        kept, tested = share_by_groups(paths, share)
        if not kept or not tested:
            raise RequestError(
                f"the class {printable(name)} has {len(paths)} images, too few for a test share of {share:g}"
            )
        train += [(path, label) for path in kept]
        test += [(path, label) for path in tested]
    names = [
        (f"{split}/{path.relative_to(root).as_posix()}", path)
        for split, part in (("train", train), ("test", test))
        for path, _ in part
    ]
    split = f"of {len(listed):,} images {len(test):,} are kept for the test, files with related names together"
    copies = said_of_copies(train, test if reads_test else [])
    return ClassFolders(train, test, classes, names, (*remark_on(others, root), split, *copies))


def _classes(folder: Path, layout: str) -> tuple[str, ...]:
    """Return the names of the class folders; raise RequestError if they cannot be classes."""
    found = subfolders(folder)
    shown = printable(folder)
    if not found:
        raise RequestError(f"{shown} has no class folder: {layout}{_seen(folder)}")
    if len(found) == 1:
        inner = [path.name for path in subfolders(found[0])]
        deeper = (
            f", and in it the folders {', '.join(printable(name) for name in inner[:_NAMED])}: "
            f"the classes seem to be one level deeper"
            if inner
            else ""
        )
        raise RequestError(f"{shown} has a single class folder, {printable(found[0].name)}{deeper}; two are needed")
    loose = [p for p in folder.iterdir() if p.is_file() and not is_hidden(p.name) and p.suffix.lower() in EXTENSIONS]
    if loose:
        raise RequestError(
            f"{shown} has {len(loose)} images beside its class folders, such as {printable(sorted(loose)[0].name)}: "
            f"move them into a class folder, or away"
        )
    return tuple(path.name for path in found)


def _listed(split: Path, classes: Sequence[str]) -> tuple[Labeled, list[Path]]:
    """Return the images of each class with their label, and the files that are left out."""
    listed: Labeled = []
    others: list[Path] = []
    for label, name in enumerate(classes):
        images, left = image_files(split / name)
        listed += [(path, label) for path in images]
        others += left
    return listed, others


def _seen(folder: Path) -> str:
    """Return `; it has the folders …` for messages."""
    inner = [path.name for path in subfolders(folder)]
    named = ", ".join(printable(name) for name in inner[:_NAMED])
    return f"; it has the folders {named}{' and more' if len(inner) > _NAMED else ''}" if inner else ""
