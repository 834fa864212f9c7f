"""What data are, as checksums: two data sets with different fingerprints are different data.

A fingerprint is a part of what a run is. It is made of names, sizes and content, never of places, so that a data set
may be moved. Of 2,048 files or more it holds all names and sizes, and the content of some 1,024 to 1,535 of them; a
change of other content is noticed with `--check-data`, which reads everything.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ...regular_files import check_regular, open_regular
from ..messages.errors import RequestError

if TYPE_CHECKING:
    from torch import Tensor

_FILES_SAMPLED = 1024


@dataclass(frozen=True)
class Fingerprint:
    """A checksum of data, computed when it is first needed; a run's identity includes that of its data.

    Attributes:
        of: Computes the text: a word for what is covered, a colon, and a digest, such as `images:3f…`.
        whole: Computes the same over all content, where `of` samples; None where `of` does not sample.

    Examples:
        >>> import zlib
        >>> from golu_core.training import Fingerprint
        >>> Fingerprint(lambda: f"rows:{zlib.crc32(b'1,2,3'):x}").text
        'rows:11894deb'
    """

    of: Callable[[], str]
    whole: Callable[[], str] | None = None

    @cached_property
    def text(self) -> str:
        """The fingerprint."""
        return self.of()

    @cached_property
    def whole_text(self) -> str:
        """The fingerprint of all content."""
        return self.text if self.whole is None else self.whole()


def short(digest: hashlib._Hash) -> str:
    """Return the first 32 hexadecimal digits of a digest."""
    return digest.hexdigest()[:32]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_fingerprint(files: Sequence[tuple[str, Path]]) -> Fingerprint:
    """Return the fingerprint of files by their names, sizes, and sampled content.

    Args:
        files: The name of each file in the data set, with its label or split, and its path.
    """

    def digest(read: Iterable[int]) -> str:
        found = hashlib.sha256()
        for name, path in files:
            found.update(f"{name}\0{file_size(path)}\n".encode("utf-8", "surrogateescape"))
        for number in read:
            found.update(_content_digest(files[number][1]))
        return short(found)

    def sampled() -> str:
        step = max(1, len(files) // _FILES_SAMPLED)
        return f"files:{digest(range(0, len(files), step))}"

    return Fingerprint(sampled, lambda: f"all-files:{digest(range(len(files)))}")


def file_size(path: Path) -> int:
    """The size of a file in bytes; RequestError where it is missing or not a regular file."""
    try:
        check_regular(path)
        return os.stat(path).st_size
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}") from None


def _content_digest(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}") from None


def whole_files_fingerprint(kind: str, files: Sequence[Path]) -> Fingerprint:
    """Return the fingerprint of a few files by their full content, independent of their names."""

    def digest() -> str:
        found = hashlib.sha256()
        for path in files:
            found.update(_content_digest(path))
        return f"{kind}:{short(found)}"

    return Fingerprint(digest)


def pixels_fingerprint(images: Iterable[tuple[str, Tensor]]) -> str:
    """Return the fingerprint of decoded images with their labels, independent of file names and formats.

    Args:
        images: The label or name of each image, with its pixels, uint8 (3, H, W).
    """
    found = hashlib.sha256()
    for name, pixels in images:
        found.update(f"{name}\0{tuple(pixels.shape)}\n".encode("utf-8", "surrogateescape"))
        found.update(pixels.contiguous().numpy().tobytes())
    return f"pixels:{short(found)}"


def encoded_fingerprint(read: Callable[[int], tuple[bytes, str]], labels: Sequence[object]) -> Fingerprint:
    """Return the fingerprint of encoded images outside files, such as data set rows, by labels and sampled content.

    Args:
        read: Function of an image's index that returns its bytes and its name.
        labels: The label of each image.
    """

    def digest(numbers: Iterable[int]) -> str:
        found = hashlib.sha256("\n".join(map(str, labels)).encode())
        for number in numbers:
            found.update(hashlib.sha256(read(number)[0]).digest())
        return short(found)

    step = max(1, len(labels) // _FILES_SAMPLED)
    return Fingerprint(
        lambda: f"rows:{digest(range(0, len(labels), step))}", lambda: f"all-rows:{digest(range(len(labels)))}"
    )


def tensors_fingerprint(tensors: Mapping[str, Tensor]) -> Fingerprint:
    """Return the fingerprint of named tensors, such as a data set in memory or the weights that a run starts from.

    Args:
        tensors: Tensors of any shape and dtype, on any device, by name.

    Examples:
        >>> import torch
        >>> from golu_core.training import tensors_fingerprint
        >>> tensors_fingerprint({"x": torch.arange(3.0)}).text
        'tensors:3b583240217f78e69afb62066da922b7'
    """
    from torch import uint8

    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name}\0{tuple(tensor.shape)}{tensor.dtype}\n".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(uint8).numpy().tobytes())
    text = f"tensors:{short(found)}"
    return Fingerprint(lambda: text)


def text_fingerprint(kind: str, texts: Iterable[str]) -> str:
    """Return the fingerprint of texts, such as other fingerprints."""
    return f"{kind}:{short(hashlib.sha256(chr(0).join(texts).encode('utf-8', 'surrogateescape')))}"


def joined(*parts: Fingerprint) -> Fingerprint:
    """Combine several fingerprints into one."""

    def of(texts: Callable[[Fingerprint], str]) -> str:
        listed = [texts(part) for part in parts]
        return text_fingerprint(listed[0].partition(":")[0], listed)

    has_whole = any(part.whole is not None for part in parts)
    return Fingerprint(lambda: of(lambda p: p.text), (lambda: of(lambda p: p.whole_text)) if has_whole else None)
