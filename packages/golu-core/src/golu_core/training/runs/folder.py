"""The run folder for its only writer: check the owner, write each file atomically, and record its checksum.

The order of a run:

1. `check_owner` and `finished` read what is there, before the data are loaded, and change nothing.
2. `open` locks the folder, compares config and inputs with run.json, removes leftovers, and returns the newest whole
   checkpoint; `check` does the same for a dry run, and changes nothing.
3. `save_checkpoint` writes a checkpoint, then removes old ones; `fail` writes failure.json.
4. `finish` writes the weights, then result.json with all checksums: from here on, the run is finished.
5. `save_curves` and the task's extras follow, then `settle_extras`; `close` releases the lock.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ...regular_files import regular_bytes
from ..config.identity import differences
from ..config.run_config import Config, RunConfig
from ..figures.curves import read_metrics, save_curves, start_in_result
from ..messages.errors import RequestError, RunFailure
from ..storage.fingerprint import file_digest
from ..storage.locks import FolderLock, claim
from ..storage.ownership import (
    RUN_MARKER,
    bytes_writer,
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
from .checkpoint import checkpoint_folders, newest_whole_checkpoint, remove_old_checkpoints, save_checkpoint
from .failures import FAILURE_FILE, Failure, write_failure
from .lengthening import is_longer, length_of, why_another_run
from .provenance import changes
from .results import RESULT_FILE, Result, read_result, write_result
from .run_files import (
    CHECKPOINT_FILES,
    CONFIG_FILE,
    CURVES_FILE,
    LAYOUT,
    METRICS_FILE,
    PENDING_FILE,
    RunIdentity,
    config_from_file,
    damaged_files,
    damaged_settings,
    read_config,
    write_config,
)


class RunFolder:
    """The run folder, for its only writer.

    Args:
        path: The path of the folder.
        outputs: The patterns of the files that the task writes, such as `samples/epoch-*.png`.
    """

    def __init__(self, path: Path, outputs: Sequence[str] = ()) -> None:
        self.path = path
        self._identity: RunIdentity | None = None
        self._lock: FolderLock | None = None
        self.layout = (*LAYOUT, *outputs, *(f"{Path(o).parent}/.*.partial/*" for o in outputs))

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    # -------------------------------------------------------------------------------------------- before data are read

    def check_owner(self, config: RunConfig, may_be_longer: bool = False) -> None:
        """Raise RequestError if the folder holds another run or files that this program did not write.

        Args:
            config: The run's configuration.
            may_be_longer: Whether a shorter run with the same steps so far is this run.
        """
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
        if may_be_longer and is_longer(config, there):
            if reason := why_another_run(config, there):
                raise RequestError(
                    f"{path} holds this run with {length_of(there)}, and cannot be continued to {length_of(config)}: "
                    f"{reason}. Train on from its weights, as a separate run, with --init-from {path} and another "
                    f"--output-dir; or use --overwrite to delete it and start over"
                )
            return
        if differing := differences(config, there):
            raise RequestError(
                f"{path} holds a run of another config:\n  "
                + "\n  ".join(differing)
                + "\nuse another --output-dir, or --overwrite to delete that run"
            )

    def check_removable(self) -> None:
        """Raise RequestError if `--overwrite` would remove anything but a run of this program."""
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
        raise RequestError(f"{self.path} exists, and is not a run of this program: use another --output-dir")

    def _config_there(self, config_type: type[Config]) -> Config | None:
        """The config of the run that lies there, as far as it can be found; None where there is no run."""
        marker = self._marker()
        if marker is not None and isinstance(marker.get("config"), dict):
            return config_from_file(marker["config"], config_type, self.path / RUN_MARKER)
        if (self.path / CONFIG_FILE).exists():
            return read_config(self.path, config_type)
        return None

    def finished(self, config: RunConfig, warn: Callable[[str], None]) -> Result | None:
        """The result, if the run is finished and its files are whole; warn of what is not, and return None."""
        path = self.path / RESULT_FILE
        if not path.exists():
            return None
        there = self._config_there(type(config))
        if there is not None and is_longer(config, there):
            lengths = f"was finished with {length_of(there)}, and is trained on to {length_of(config)}"
            warn(f"{self.path} {lengths}; {RESULT_FILE} is gone until then")
            return None
        try:
            result = read_result(path)
        except RequestError as error:
            warn(f"{error}; the run is completed from its last checkpoint")
            return None
        if damage := [*damaged_files(self.path, result), *damaged_settings(self.path, type(config), result)]:
            warn(f"{'; '.join(damage)}; the run is completed from its last checkpoint")
            return None
        if self._extras_are_pending and any(self.checkpoints.glob("step-*")):
            warn(f"the run in {self.path} was stopped after its result and before its pictures, which are made now")
            return None
        return result

    @property
    def _extras_are_pending(self) -> bool:
        """Whether the run has its result, and was stopped before its pictures and the like were tried."""
        return (self.path / PENDING_FILE).exists() and (self.path / RESULT_FILE).exists()

    # ------------------------------------------------------------------------------------------------- the transaction

    def open(self, identity: RunIdentity, warn: Callable[[str], None]) -> Path | None:
        """Prepare the folder for this run, and return the checkpoint to resume from.

        To be called by one process, which is the folder's only writer until `close`.

        Raises:
            RequestError: The folder holds another run, a run on different data, or a run that cannot be resumed.
            RunFailure: The folder cannot be written.
        """
        try:
            self._lock = claim(self.path)
            found = self._take(identity, warn)
        except OSError as error:
            raise RunFailure(f"the run folder {self.path} cannot be written: {error}") from error
        self._identity = identity
        return found

    def close(self) -> None:
        """Release the folder's lock."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _take(self, identity: RunIdentity, warn: Callable[[str], None]) -> Path | None:
        remove_leftovers(self.path)
        config = identity.config
        if config.overwrite and not self._is_this_overwriting_run(identity, warn):
            self.check_removable()
            discard(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        marker = self._marker()
        found = self._continued_from(marker, identity, warn)
        sweep_partials(self.path)
        for inner in ("checkpoints", "samples"):
            sweep_partials(self.path / inner)
        if found is not None and found == checkpoint_folders(self.checkpoints)[-1]:  # a kill may have left older ones
            remove_old_checkpoints(self.checkpoints, config.keep_checkpoints)
        values = identity.to_json()
        if marker is not None:
            longer = is_longer(config, config_from_file(marker.get("config"), type(config), self.path / RUN_MARKER))
            if longer:  # first, since a longer run that has a result would be a damaged one
                remove_file(self.path / RESULT_FILE)
                remove_file(self.path / PENDING_FILE)
            mine = {name: values[name] for name in ("config", "config_sha256") if longer}
            values = {**marker, **mine, "inputs": {**marker["inputs"], **identity.inputs}}  # all content may be new
        if read_marker(self.path, RUN_MARKER) != values:
            write_json(self.path / RUN_MARKER, {"begun_by_overwrite": config.overwrite, **values})
        write_config(self.path, config)
        if not self._extras_are_pending:
            remove_file(self.path / RESULT_FILE)
        remove_file(self.path / FAILURE_FILE)
        self._restore_metrics(found, warn)
        return found

    def check(self, identity: RunIdentity, warn: Callable[[str], None]) -> Path | None:
        """Return the checkpoint that `open` would resume from, without changing anything.

        Raises:
            RequestError: `open` would raise it.
        """
        if identity.config.overwrite and not self._is_this_overwriting_run(identity, warn):
            self.check_removable()
            return None
        return self._continued_from(self._marker(), identity, warn)

    def _continued_from(
        self, marker: Mapping[str, Any] | None, identity: RunIdentity, warn: Callable[[str], None]
    ) -> Path | None:
        """Return this run's newest complete checkpoint; raise RequestError for another run or one beyond repair."""
        if marker is not None:
            self._check_same(marker, identity, warn)
        found = newest_whole_checkpoint(self.checkpoints, CHECKPOINT_FILES, warn)
        if found is not None:
            self._check_same(self._marker_of(found), identity, warn)
        elif (self.path / RESULT_FILE).exists():
            raise RequestError(
                f"the finished run in {self.path} is damaged or to be trained longer, and has no checkpoint to "
                f"continue from: restore it from a backup, or start again with --overwrite"
            )
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
        finished = (self.path / RESULT_FILE).exists() and not self._extras_are_pending
        if marker is None or not marker.get("begun_by_overwrite") or finished:
            return False
        try:
            self._check_same(marker, identity, lambda sentence: None)
            newest_whole_checkpoint(self.checkpoints, CHECKPOINT_FILES, lambda sentence: None)
        except RequestError as error:
            warn(f"the run in this folder is deleted: {error}")
            return False
        return True

    def _marker_of(self, checkpoint: Path) -> dict[str, Any]:
        marker = read_marker(checkpoint, RUN_MARKER)
        if marker is None:
            raise RequestError(f"{checkpoint / RUN_MARKER} cannot be read, so the run that it belongs to is unknown")
        return marker

    def _check_same(self, marker: Mapping[str, Any], identity: RunIdentity, warn: Callable[[str], None]) -> None:
        """Compare a run.json with the request: config and inputs must match, and different versions are reported."""
        there = config_from_file(marker.get("config"), type(identity.config), self.path / RUN_MARKER)
        differing = [] if is_longer(identity.config, there) else differences(identity.config, there)
        inputs: Mapping[str, str] = marker.get("inputs", {})
        for name in sorted(set(inputs) & set(identity.inputs)):
            if inputs[name] != identity.inputs[name]:
                differing.append(f"{name.partition('_')[0]}: {inputs[name]} there, {identity.inputs[name]} now")
        for name in sorted(set(inputs) ^ set(identity.inputs)):
            if not name.endswith("_whole"):
                differing.append(f"{name}: {inputs.get(name, 'none')} there, {identity.inputs.get(name, 'none')} now")
        if differing:
            raise RequestError(
                f"the run in {self.path} has another config or other data:\n  "
                + "\n  ".join(differing)
                + "\nrestore its config and data, use another --output-dir, or --overwrite to delete that run"
            )
        if changed := changes(marker.get("environment", {}), identity.environment):
            warn(f"the run began under other versions: {'; '.join(changed)}")

    def _restore_metrics(self, checkpoint: Path | None, warn: Callable[[str], None]) -> None:
        """Restore metrics.jsonl from the copy in the checkpoint."""
        path = self.path / METRICS_FILE
        kept = b"" if checkpoint is None else regular_bytes(checkpoint / METRICS_FILE)
        there = regular_bytes(path) if path.exists() else b""
        if there == kept:
            return
        if not there.startswith(kept):
            warn(f"{path} has lost or changed lines that the checkpoint has; it is restored from the checkpoint")
        write_atomically(path, bytes_writer(kept))

    def save_checkpoint(self, step: int, state: Mapping[str, Callable[[Path], None]], keep: int) -> None:
        """Write a checkpoint: the training state, the run's identity, and the metrics so far.

        Raises:
            RunFailure: The checkpoint could not be written; the message names the last good one.
        """
        assert self._identity is not None
        marker = json.dumps(self._identity.to_json(), indent=1).encode()
        writers = {
            **state,
            RUN_MARKER: bytes_writer(marker),
            METRICS_FILE: bytes_writer(self._metrics_so_far()),
        }
        save_checkpoint(self.checkpoints, step, writers, keep)

    def _metrics_so_far(self) -> bytes:
        path = self.path / METRICS_FILE
        return regular_bytes(path) if path.exists() else b""

    def finish(self, result: Result, weights: Mapping[str, Callable[[Path], None]], others: Sequence[str]) -> Result:
        """Write weights and result.json, in this order; pictures and the like are pending until `settle_extras`.

        Args:
            result: The result, without the checksums of files.
            weights: The functions that write the weight files, by file name.
            others: The task's files that using the run requires.

        Returns:
            The result with the checksums.

        Raises:
            RunFailure: A file could not be written.
        """
        try:
            for name, write in weights.items():
                write_atomically(self.path / name, write)
            metrics = read_metrics(self.path / METRICS_FILE)
            files = {name: file_digest(self.path / name) for name in (METRICS_FILE, *weights, *others)}
            result = dataclasses.replace(result, files=files, other={**result.other, **start_in_result(metrics)})
            write_json(self.path / PENDING_FILE, {"format": "golu-pending/1"})
            write_result(self.path / RESULT_FILE, result)
        except (OSError, SafetensorError) as error:
            raise RunFailure(f"the result could not be written: {error}") from error
        return result

    def save_curves(self, result: Result) -> None:
        """Draw curves.png."""
        title = f"{result.recipe}  {result.activation}  seed {result.seed}"
        metrics = read_metrics(self.path / METRICS_FILE)
        save_curves(self.path / CURVES_FILE, metrics, result.primary_metric.name, title)

    def settle_extras(self) -> None:
        """Record that no optional output, such as a picture, is pending."""
        remove_file(self.path / PENDING_FILE)

    def fail(self, step: int, reason: str, warn: Callable[[str], None]) -> None:
        """Write failure.json for a run whose loss was not finite. If it cannot be written, print a warning."""
        good = checkpoint_folders(self.checkpoints)
        checkpoint = good[-1].relative_to(self.path).as_posix() if good else ""
        try:
            write_failure(self.path, Failure(step, reason, checkpoint))
        except OSError as error:
            warn(f"{FAILURE_FILE} could not be written: {error}")
