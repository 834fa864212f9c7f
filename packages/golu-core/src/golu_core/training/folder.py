"""The folder of a run: where it is, whose it is, and each file in it whole, checked and accounted for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .checkpoint import newest_whole_checkpoint
from .config import Config, RunConfig, config_sha256, differences, from_json, to_json
from .errors import RequestError
from .fingerprint import file_digest
from .ownership import (
    CHECKPOINT_MARKER,
    RUN_MARKER,
    discard,
    foreign_files,
    is_ours,
    read_marker,
    remove_file,
    remove_leftovers,
    sweep_partials,
    write_atomically,
    write_json,
)
from .provenance import changes
from .results import RESULT_FILE, Result, read_result

CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.jsonl"
WEIGHTS_FILE = "model.safetensors"
AVERAGE_FILE = "model_ema.safetensors"
POSITION_FILE = "position.json"
CHECKPOINT_FILES = (WEIGHTS_FILE, "optimizer.pt", POSITION_FILE, METRICS_FILE, RUN_MARKER)
_POSSIBLE_IN_CHECKPOINTS = (*CHECKPOINT_FILES, CHECKPOINT_MARKER, "average.safetensors", "scaler.json")
_CONFIG_FORMAT = "golu-config/2"
_RUN_FORMAT = "golu-run/2"
_LAYOUT = (
    CONFIG_FILE,
    METRICS_FILE,
    RESULT_FILE,
    RUN_MARKER,
    WEIGHTS_FILE,
    AVERAGE_FILE,
    "curves.png",
    *(f"checkpoints/step-????????/{name}" for name in _POSSIBLE_IN_CHECKPOINTS),
    "checkpoints/.step-*.partial/*",
    "checkpoints/.step-*.discarded/*",
    ".*.partial/*",
    "golu-*/*events.out.tfevents*",
)


def run_folder(config: RunConfig, task: str) -> Path:
    """OUTPUT_DIR/<task>/<recipe>/<activation>/seed<N>."""
    return config.output_dir / task / config.recipe / config.activation / f"seed{config.seed}"


@dataclass(frozen=True)
class RunIdentity:
    """What a run is: all that its numbers follow from.

    Attributes:
        config: the resolved config.
        inputs: fingerprints of what the run reads: `data`, `data_whole` where all of it was read, `backbone` and so on.
        environment: versions of the code; they may change, and that is said.
    """

    config: RunConfig
    inputs: Mapping[str, str]
    environment: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        return {
            "format": _RUN_FORMAT,
            "config_sha256": config_sha256(self.config),
            "inputs": dict(self.inputs),
            "environment": dict(self.environment),
            "config": config_to_file(self.config),
        }


def config_to_file(config: RunConfig) -> dict[str, Any]:
    """What config.json holds."""
    return {"format": _CONFIG_FORMAT, **to_json(config)}


def write_config(folder: Path, config: RunConfig) -> None:
    """Writes config.json, whole or not at all."""
    write_json(folder / CONFIG_FILE, config_to_file(config))


def read_config(folder: Path, config_type: type[Config]) -> Config:
    """The config of a run folder; RequestError where there is none or it cannot be read."""
    path = folder / CONFIG_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RequestError(f"{folder} is not a run folder: it has no {CONFIG_FILE}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(f"{path} cannot be read: {error}") from None
    return _config_from_file(values, config_type, path)


def _config_from_file(values: Any, config_type: type[Config], path: Path) -> Config:
    if not isinstance(values, dict):
        raise RequestError(f"{path} is not a config: it holds no object")
    written_as = values.get("format")
    if written_as != _CONFIG_FORMAT:
        version = "version 0.1 of golu" if written_as is None else f"another version of golu ({written_as})"
        raise RequestError(
            f"{path} was written by {version}, whose runs this version can put into tables but not evaluate or "
            f"continue: use that version for it"
        )
    return from_json(config_type, {name: value for name, value in values.items() if name != "format"})


class RunFolder:
    """A run's folder, as its one writer sees it.

    Args:
        path: of the folder.
        outputs: patterns of the files that the task itself writes, such as `samples/epoch-*.png`.
    """

    def __init__(self, path: Path, outputs: Sequence[str] = ()) -> None:
        self.path = path
        self.layout = (*_LAYOUT, *outputs, *(f"{Path(o).parent}/.*.partial/*" for o in outputs))

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are."""
        return self.path / "checkpoints"

    # -------------------------------------------------------------------------------------------- before data are read

    def check_owner(self, config: RunConfig) -> None:
        """Raises RequestError if what lies there is another run, or no run of this program."""
        path = self.path
        if path.is_symlink():
            raise RequestError(f"{path} is a symbolic link: name the folder itself, by --output-dir")
        if not path.exists():
            return
        if not path.is_dir():
            raise RequestError(f"{path} is not a folder: choose another --output-dir")
        if config.overwrite:
            self.check_removable()
            return
        there = self._config_there(type(config))
        if there is None:
            self._check_nothing_foreign()
            return
        differing = differences(config, there)
        if differing:
            raise RequestError(
                f"{path} holds a run of another config:\n  "
                + "\n  ".join(differing)
                + "\nuse another --output-dir, or --overwrite to delete that run"
            )

    def check_removable(self) -> None:
        """Raises RequestError if `--overwrite` would remove something that is not a run of this program."""
        if not self.path.exists() or not any(self.path.iterdir()):
            return
        if not is_ours(self.path):
            raise RequestError(
                f"{self.path} is not a run that this version of golu made (it has no {RUN_MARKER}), so --overwrite "
                f"does not remove it: move it away, or use another --output-dir"
            )
        foreign = foreign_files(self.path, self.layout)
        if foreign:
            more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
            raise RequestError(
                f"{foreign[0]}{more} is not a file of the run, so --overwrite does not remove the folder: "
                f"move it away, or use another --output-dir"
            )

    def _check_nothing_foreign(self) -> None:
        if is_ours(self.path) or not any(self.path.iterdir()):
            return
        raise RequestError(f"{self.path} is there, and is not a run of this program: use another --output-dir")

    def _config_there(self, config_type: type[Config]) -> Config | None:
        """The config of the run that lies there, as far as it can be found; None where there is no run."""
        marker = self._marker()
        if marker is not None and isinstance(marker.get("config"), dict):
            return _config_from_file(marker["config"], config_type, self.path / RUN_MARKER)
        if (self.path / CONFIG_FILE).exists():
            return read_config(self.path, config_type)
        return None

    def finished(self, warn: Callable[[str], None]) -> Result | None:
        """The result, if the run is finished and its files are whole; what is damaged is said, and made anew."""
        path = self.path / RESULT_FILE
        if not path.exists():
            return None
        try:
            result = read_result(path)
        except RequestError as error:
            warn(f"{error}; the run is completed from its last checkpoint")
            return None
        damage = damaged_files(self.path, result)
        if damage:
            warn(f"{'; '.join(damage)}; the run is completed from its last checkpoint")
            return None
        return result

    # ------------------------------------------------------------------------------------------------- the transaction

    def take(self, identity: RunIdentity, warn: Callable[[str], None]) -> Path | None:
        """Makes the folder ready for this run, and finds the checkpoint from which it continues.

        To be called by one process, which holds the folder's lock.

        Raises:
            RequestError: what lies there is another run, or of other data, or cannot be continued.
        """
        config = identity.config
        remove_leftovers(self.path)
        if config.overwrite and not self._is_this_overwriting_run(identity, warn):
            self.check_removable()
            discard(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        marker = self._marker()
        if marker is not None:
            self._check_same(marker, identity, warn)
        sweep_partials(self.path)
        for inner in ("checkpoints", "samples"):
            sweep_partials(self.path / inner)
        found = newest_whole_checkpoint(self.checkpoints, CHECKPOINT_FILES, warn)
        if found is not None:
            self._check_same(self._marker_of(found), identity, warn)
        elif (self.path / RESULT_FILE).exists():
            raise RequestError(
                f"the finished run in {self.path} is damaged and has no checkpoint to complete it from: "
                f"restore it from a backup, or start it anew with --overwrite"
            )
        values = identity.to_json()
        if marker is not None:
            values = {**marker, "inputs": {**marker["inputs"], **identity.inputs}}  # all content may be new among them
        if read_marker(self.path, RUN_MARKER) != values:
            write_json(self.path / RUN_MARKER, {"begun_by_overwrite": config.overwrite, **values})
        write_config(self.path, config)
        remove_file(self.path / RESULT_FILE)
        self._restore_metrics(found, warn)
        return found

    def _marker(self) -> dict[str, Any] | None:
        """run.json; where that is gone, the copy in the newest checkpoint that has one."""
        marker = read_marker(self.path, RUN_MARKER)
        if marker is not None:
            return marker
        for checkpoint in sorted(self.checkpoints.glob("step-*"), reverse=True):
            copy = read_marker(checkpoint, RUN_MARKER)
            if copy is not None:
                return copy
        return None

    def _is_this_overwriting_run(self, identity: RunIdentity, warn: Callable[[str], None]) -> bool:
        """Whether an unfinished run lies there that the same command with --overwrite began."""
        marker = read_marker(self.path, RUN_MARKER)
        if marker is None or not marker.get("begun_by_overwrite") or (self.path / RESULT_FILE).exists():
            return False
        try:
            self._check_same(marker, identity, lambda sentence: None)
            newest_whole_checkpoint(self.checkpoints, CHECKPOINT_FILES, lambda sentence: None)
        except RequestError as error:
            warn(f"the run that lies there is deleted: {error}")
            return False
        return True

    def _marker_of(self, checkpoint: Path) -> dict[str, Any]:
        marker = read_marker(checkpoint, RUN_MARKER)
        if marker is None:
            raise RequestError(f"{checkpoint / RUN_MARKER} cannot be read, so nobody knows what run it is of")
        return marker

    def _check_same(self, marker: Mapping[str, Any], identity: RunIdentity, warn: Callable[[str], None]) -> None:
        """Compares a run.json with what is asked for: config and inputs must be the same, versions are said."""
        there = _config_from_file(marker.get("config"), type(identity.config), self.path / RUN_MARKER)
        differing = differences(identity.config, there)
        inputs: Mapping[str, str] = marker.get("inputs", {})
        for name in sorted(set(inputs) & set(identity.inputs)):
            if inputs[name] != identity.inputs[name]:
                differing.append(f"{name.partition('_')[0]}: {inputs[name]} there, {identity.inputs[name]} now")
        for name in sorted(set(inputs) ^ set(identity.inputs)):
            if not name.endswith("_whole"):
                differing.append(f"{name}: {inputs.get(name, 'none')} there, {identity.inputs.get(name, 'none')} now")
        if differing:
            raise RequestError(
                f"the run in {self.path} is of another config or of other data:\n  "
                + "\n  ".join(differing)
                + "\nbring back what it began with, use another --output-dir, or --overwrite to delete that run"
            )
        changed = changes(marker.get("environment", {}), identity.environment)
        if changed:
            warn(f"the run began under other versions: {'; '.join(changed)}")

    def _restore_metrics(self, checkpoint: Path | None, warn: Callable[[str], None]) -> None:
        """Puts metrics.jsonl back to where the checkpoint stands, from the copy in it."""
        path = self.path / METRICS_FILE
        kept = b"" if checkpoint is None else (checkpoint / METRICS_FILE).read_bytes()
        there = path.read_bytes() if path.exists() else b""
        if there == kept:
            return
        if not there.startswith(kept):
            warn(f"{path} lacked or changed lines that the checkpoint knows; it is restored from there")
        write_atomically(path, lambda partial: _write_bytes(partial, kept))


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def append_metrics(folder: Path, line: dict[str, Any]) -> None:
    """Adds a line to metrics.jsonl, and makes sure that it is on the disk."""
    with (folder / METRICS_FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def damaged_files(folder: Path, result: Result) -> list[str]:
    """Which of a finished run's files are missing or do not have the checksum that its result.json names."""
    problems = []
    for name, expected in result.files.items():
        try:
            if file_digest(folder / name) != expected:
                problems.append(f"{folder / name} does not have the checksum that {RESULT_FILE} names")
        except FileNotFoundError:
            problems.append(f"{folder / name} is missing")
        except OSError as error:
            problems.append(f"{folder / name} cannot be read: {error.strerror}")
    return problems
