"""Atomic checkpoints: written to a temporary folder, verified by checksum, and renamed into place."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from ...regular_files import regular_json
from ..messages.errors import RequestError, RunFailure
from ..storage.fingerprint import file_digest
from ..storage.ownership import (
    CHECKPOINT_MARKER,
    begin_partial,
    discard,
    foreign_files,
    partial_of,
    publish,
    sweep_partials,
    sync,
)

FORMAT = "golu-checkpoint/2"
_PREFIX = "step-"


def checkpoint_folders(folder: Path) -> list[Path]:
    """Return the checkpoints in a run's folder, oldest first."""
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if path.is_dir())


def last_good_checkpoint(folder: Path) -> str:
    """Return a clause for messages that names the newest checkpoint."""
    good = checkpoint_folders(folder)
    return f"the last good checkpoint is {good[-1]}" if good else "there is no earlier checkpoint"


def save_checkpoint(folder: Path, step: int, writers: dict[str, Callable[[Path], None]], keep: int) -> Path:
    """Write the files of one checkpoint and remove all but the newest `keep`.

    Args:
        folder: the run's `checkpoints`.
        step: The number of completed optimizer steps.
        writers: The functions that write the files, by file name.
        keep: The number of checkpoints to keep.

    Raises:
        RunFailure: A file could not be written. It is removed, and the message names the last good checkpoint.
    """
    final = folder / f"{_PREFIX}{step:08d}"
    try:
        sweep_partials(folder)
        partial = begin_partial(final)
        for name, write in writers.items():
            write(partial / name)
            sync(partial / name)
        files = {name: file_digest(partial / name) for name in writers}
        manifest = {"format": FORMAT, "step": step, "files": files}
        (partial / CHECKPOINT_MARKER).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        sync(partial / CHECKPOINT_MARKER)
        discard(final)
        publish(partial, final)
    except Exception as error:  # each library has its own error for a full disk
        with contextlib.suppress(OSError, RequestError):
            discard(partial_of(final))
        raise RunFailure(
            f"could not write the checkpoint of step {step} ({error}); {_free_space(folder)}; "
            f"{last_good_checkpoint(folder)}"
        ) from error
    remove_old_checkpoints(folder, keep)
    return final


def remove_old_checkpoints(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints written by this program, and the remains of interrupted removals."""
    for old in checkpoint_folders(folder)[:-keep]:
        if not foreign_files(old, [*_files_of(old), CHECKPOINT_MARKER]):
            with contextlib.suppress(RequestError):  # somebody else's folder of that name
                discard(old)


def _files_of(checkpoint: Path) -> list[str]:
    """Return the names of a checkpoint's files, as far as its manifest can be read."""
    try:
        return list(regular_json(checkpoint / CHECKPOINT_MARKER)["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _free_space(folder: Path) -> str:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return f"{shutil.disk_usage(there).free / 1e6:,.1f} MB are free on its disk"


def newest_whole_checkpoint(folder: Path, needed: Collection[str], warn: Callable[[str], None]) -> Path | None:
    """The newest checkpoint whose files have the checksums of its manifest; None if there is no checkpoint at all.

    Each damaged checkpoint is reported through `warn`.

    Args:
        folder: the run's `checkpoints`.
        needed: The files that a complete checkpoint must have.
        warn: The function that prints a warning.

    Raises:
        RequestError: There are checkpoints, but none is complete, or another version of golu wrote one.
    """
    found = checkpoint_folders(folder)
    for path in reversed(found):
        damage = damage_of(path, needed)
        if damage is None:
            return path
        warn(f"checkpoint {path} is damaged ({damage}); falling back to the previous one")
    if found:
        raise RequestError(
            f"none of the {len(found)} checkpoints in {folder} is whole: "
            f"restore one from a backup, or start again with --overwrite"
        )
    return None


def damage_of(checkpoint: Path, needed: Collection[str] = ()) -> str | None:
    """What is wrong with a checkpoint, None if it is whole; RequestError if another version of golu wrote it."""
    try:
        manifest: Any = regular_json(checkpoint / CHECKPOINT_MARKER)
    except FileNotFoundError:
        return f"{CHECKPOINT_MARKER} is missing"
    except (OSError, ValueError, RecursionError) as error:
        return f"its manifest cannot be read: {error}"
    written_as = manifest.get("format") if isinstance(manifest, dict) else None
    if isinstance(written_as, str) and written_as.startswith("golu-checkpoint/") and written_as != FORMAT:
        raise RequestError(
            f"{checkpoint} is a {written_as}, and this version reads {FORMAT}: "
            f"continue the run with the version of golu that began it"
        )
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if written_as != FORMAT or not isinstance(files, dict):
        return "its manifest is not one"
    missing = sorted(set(needed) - set(files))
    if missing:
        return f"its manifest does not have {', '.join(missing)}"
    for name, expected in files.items():
        if Path(name).name != name:
            return f"its manifest names {name!r}, which is not a file of it"
        try:
            if file_digest(checkpoint / name) != expected:
                return f"{name} does not have its checksum"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"
    return None
