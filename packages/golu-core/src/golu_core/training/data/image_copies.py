"""Images with the same content: test images among the training images, and training images in two classes."""

from __future__ import annotations

import hashlib
import os
import random
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...regular_files import open_regular
from ..messages.errors import RequestError
from ..messages.text_sinks import printable
from ..storage.fingerprint import file_size

_OPENED = 50_000  # files that are compared by content at most: a few seconds on a local disk
_PART = 4096  # bytes from the middle of a file, which differ in nearly all pairs of images
Labeled = Sequence[tuple[Path, int]]


@dataclass(frozen=True)
class EqualFiles:
    """Files with equal bytes.

    Attributes:
        groups: The numbers of the files in each group of two or more.
        examined: The numbers of all files that were compared: with a file of this set, every equal file is in it.
    """

    groups: list[list[int]]
    examined: frozenset[int]


def equal_files(paths: Sequence[Path]) -> EqualFiles:
    """Find files with equal bytes.

    Only files of equal size are opened. Where these are too many, sizes are chosen at random, the same ones every time,
    and all files of a chosen size are compared.

    Raises:
        RequestError: A file cannot be read.
    """
    of_size = _grouped(range(len(paths)), lambda number: file_size(paths[number]))
    repeated = [numbers for numbers in of_size if len(numbers) > 1]
    random.Random(0).shuffle(repeated)
    opened = 0
    compared: list[list[int]] = []
    left_out: set[int] = set()
    for numbers in repeated:
        if compared and opened + len(numbers) > _OPENED:
            left_out.update(numbers)
        else:
            compared.append(numbers)
            opened += len(numbers)
    groups = [
        sorted(same)
        for numbers in compared
        for alike in _grouped(numbers, lambda number: _read(paths[number], _middle))
        if len(alike) > 1
        for same in _grouped(alike, lambda number: _read(paths[number], _digest))
        if len(same) > 1
    ]
    return EqualFiles(sorted(groups), frozenset(set(range(len(paths))) - left_out))


def said_of_copies(train: Labeled, test: Labeled) -> tuple[str, ...]:
    """Return sentences on test images among the training images, and on training images in two classes.

    Args:
        train, test: Each image's file and the number of its class; the same number where there are no classes.

    Raises:
        RequestError: A file cannot be read.
    """
    files = [*train, *test]
    found = equal_files([path for path, _ in files])
    leaked: list[tuple[int, int]] = []  # a test image, and a training image with the same content
    ambiguous: list[list[int]] = []
    for group in found.groups:
        of_train = [number for number in group if number < len(train)]
        leaked += [(number, of_train[0]) for number in group[len(of_train) :] if of_train]
        if len({train[number][1] for number in of_train}) > 1:
            ambiguous.append(of_train)
    said = []
    if leaked:
        examined = sum(number >= len(train) for number in found.examined)
        copy, original = (printable(files[number][0]) for number in min(leaked))
        count = _counted(len(leaked), examined, len(test), "test image")
        are = "is" if len(leaked) == 1 else "are"
        said.append(f"{count} {are} also among the training images, such as {copy}, the same as {original}")
    if ambiguous:
        examined = sum(number < len(train) for number in found.examined)
        first = ambiguous[0][0]
        second = next(number for number in ambiguous[0] if train[number][1] != train[first][1])
        count = _counted(sum(map(len, ambiguous)), examined, len(train), "training image")
        named = f"{printable(train[first][0])} and {printable(train[second][0])}"
        said.append(f"{count} are in two or more classes with the same content, such as {named}")
    return tuple(said)


def _counted(found: int, examined: int, count: int, what: str) -> str:
    """`5 test images`, or `5 of 2,000 test images examined`."""
    if examined < count:
        return f"{found:,} of {examined:,} {what}s examined"
    return f"{found:,} {what}{'' if found == 1 else 's'}"


def _grouped(numbers: Iterable[int], key: Callable[[int], Hashable]) -> list[list[int]]:
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for number in numbers:
        groups[key(number)].append(number)
    return list(groups.values())


def _read(path: Path, how: Callable[[Path], Hashable]) -> Hashable:
    try:
        return how(path)
    except OSError as error:
        raise RequestError(f"the image {printable(path)} cannot be read: {error.strerror}") from None


def _middle(path: Path) -> bytes:
    with open_regular(path) as file:
        file.seek(max(0, (os.fstat(file.fileno()).st_size - _PART) // 2))
        return hashlib.sha256(file.read(_PART)).digest()


def _digest(path: Path) -> bytes:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").digest()
