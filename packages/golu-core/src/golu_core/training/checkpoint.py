"""Checkpoints that are whole or not there: written beside, checked by checksum, renamed into place."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import RequestError, RunFailure

MANIFEST = "manifest.json"
_PREFIX = "step-"
_PARTIAL = "partial-"


def checkpoint_folders(folder: Path) -> list[Path]:
    """The checkpoints in a run's folder, oldest first."""
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if path.is_dir())


def save_checkpoint(folder: Path, step: int, writers: dict[str, Callable[[Path], None]], keep: int) -> Path:
    """Writes the files of one checkpoint and removes all but the newest `keep`.

    Args:
        folder: the run's `checkpoints`.
        step: the optimizer step that the checkpoint stands behind.
        writers: file name to a function that writes that file.
        keep: how many checkpoints stay.

    Raises:
        RunFailure: a file could not be written; nothing is left of it, and the message names the last good checkpoint.
    """
    final = folder / f"{_PREFIX}{step:08d}"
    partial = folder / f"{_PARTIAL}{final.name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(f"{_PARTIAL}*"):
            shutil.rmtree(leftover)
        partial.mkdir()
        for name, write in writers.items():
            write(partial / name)
            _sync(partial / name)
        manifest = {name: file_digest(partial / name) for name in writers}
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=1))
        _sync(partial / MANIFEST)
        if final.exists():
            shutil.rmtree(final)
        partial.rename(final)
        _sync(folder)
    except Exception as error:  # each library has its own error for a full disk
        shutil.rmtree(partial, ignore_errors=True)
        good = checkpoint_folders(folder)
        last = f"the last good checkpoint is {good[-1]}" if good else "there is no earlier checkpoint"
        raise RunFailure(
            f"could not write the checkpoint of step {step} ({error}); {_free_space(folder)}; {last}"
        ) from error
    for old in checkpoint_folders(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def _free_space(folder: Path) -> str:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return f"{shutil.disk_usage(there).free / 1e6:,.1f} MB are free on its disk"


def newest_whole_checkpoint(folder: Path, warn: Callable[[str], None]) -> Path | None:
    """The newest checkpoint whose files have the checksums of its manifest; None if there is no checkpoint at all.

    Each damaged one is named by `warn`.

    Raises:
        RequestError: there are checkpoints, but none is whole.
    """
    found = checkpoint_folders(folder)
    for path in reversed(found):
        damage = damage_of(path)
        if damage is None:
            return path
        warn(f"checkpoint {path} is damaged ({damage}); falling back to the one before")
    if found:
        raise RequestError(
            f"none of the {len(found)} checkpoints in {folder} is whole: "
            f"restore one from a backup, or start the run anew with --overwrite"
        )
    return None


def damage_of(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, None if it is whole."""
    try:
        manifest: dict[str, Any] = json.loads((checkpoint / MANIFEST).read_text())
        for name, expected in manifest.items():
            if file_digest(checkpoint / name) != expected:
                return f"{name} does not have its checksum"
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing"
    except (OSError, ValueError, AttributeError) as error:
        return f"its manifest cannot be read: {error}"
    return None


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Writes a file beside its place and renames it, so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        write(partial)
        _sync(partial)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file, whole or not at all."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8, whole or not at all."""

    def write(partial: Path) -> None:
        partial.write_text(text, encoding="utf-8")

    write_atomically(path, write)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
