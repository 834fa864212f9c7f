"""Data sets that `datasets` loads, of the Hub or saved on disk, and the images in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ...regular_files import regular_bytes
from ..messages.errors import RequestError
from ..storage.user_folders import check_files

_TEST_SPLITS = ("validation", "valid", "val", "test")


class ImageSplits(NamedTuple):
    """A data set of images.

    Attributes:
        train, test: The splits, as loaded by `datasets`.
        column: The name of the image column.
        remarks: Sentences that name the split of the test images if there are several candidates.
    """

    train: Any
    test: Any
    column: str
    remarks: tuple[str, ...]


def load_dataset(path: str, what: str | None = None, **options: Any) -> Any:
    """Load a data set from the Hub or disk with `datasets`; raise RequestError if that fails.

    Args:
        path: An id on the Hub, or a folder that `save_to_disk` wrote.
        what: The data set's name in messages; the default is the path.
        **options: Arguments of `datasets.load_dataset`; arguments that are None are omitted.
    """
    import datasets

    if Path(path).is_dir():
        check_files(Path(path))
    try:
        if (Path(path) / "dataset_dict.json").exists():
            return datasets.load_from_disk(path)
        return datasets.load_dataset(path, **{name: value for name, value in options.items() if value is not None})
    except Exception as error:  # datasets, huggingface_hub and the network have their own
        raise RequestError(
            f"datasets cannot load {what or repr(path)}: {type(error).__name__}: {str(error)[:300]}"
        ) from None


def load_image_splits(path: str, revision: str | None = None) -> ImageSplits:
    """Load the training and test splits of a data set; the validation split is the test split if it has both.

    Args:
        path: An ID on the Hub, or a folder that `save_to_disk` wrote.
        revision: The revision of a data set on the Hub.

    Raises:
        RequestError: The data set cannot be loaded, or lacks these splits or an image column.
    """
    import datasets

    splits = load_dataset(path, revision=revision)
    if not isinstance(splits, dict):
        raise RequestError(f"{path!r} has no splits: train and one of {', '.join(_TEST_SPLITS)} are needed")
    tests = [name for name in _TEST_SPLITS if name in splits]
    if "train" not in splits or not tests:
        raise RequestError(
            f"{path!r} has the splits {', '.join(splits)}: train and one of {', '.join(_TEST_SPLITS)} are needed"
        )
    features = splits["train"].features
    column = next((name for name, kind in features.items() if isinstance(kind, datasets.Image)), None)
    if column is None:
        raise RequestError(f"{path!r} has the columns {', '.join(features)}: one with images is needed")
    others = [name for name in splits if name not in ("train", tests[0])]
    remarks = (
        (f"the test images are those of {path}'s split {tests[0]}; {', '.join(others)} is not used",) if others else ()
    )
    return ImageSplits(splits["train"], splits[tests[0]], column, remarks)


def encoded_images(rows: Any, column: str, name: str) -> Callable[[int], tuple[bytes, str]]:
    """Return a function of a row's index that returns its encoded image and a name for messages."""
    import datasets

    undecoded = rows.cast_column(column, datasets.Image(decode=False))

    def read(number: int) -> tuple[bytes, str]:
        value = undecoded[number][column]
        return value["bytes"] or regular_bytes(value["path"]), f"{name}[{number}]"

    return read
