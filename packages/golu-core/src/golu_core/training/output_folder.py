"""A folder that a person names for what a command makes: it appears with all that is in it, or the command fails."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import RequestError


def check_output_folder(folder: Path, flag: str) -> None:
    """Raises RequestError if something lies where a command would write; `flag` names the folder, such as `--out`."""
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise RequestError(f"{folder} exists, and is not an empty folder: name a new one by {flag}")


@contextmanager
def output_folder(folder: Path, flag: str, last: str = "") -> Iterator[Path]:
    """A temporary folder for the block to fill, whose files are then copied to a new one.

    Args:
        folder: that is to hold them.
        flag: that names it.
        last: the file whose presence means that the folder is whole.

    Raises:
        RequestError: something lies there.
    """
    check_output_folder(folder, flag)
    with tempfile.TemporaryDirectory() as place:
        yield Path(place)
        files = [path for path in Path(place).rglob("*") if path.is_file()]
        for path in sorted(files, key=lambda path: (path.name == last, path)):
            target = folder / path.relative_to(place)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
