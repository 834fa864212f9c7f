"""The files of a run: their paths and names, and functions that read and write its config."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from golu_core.activation.names.specs import folder_name

from ...regular_files import regular_json
from ..config.identity import config_sha256
from ..config.named_activations import ACTIVATION_FILE, loaded_code
from ..config.run_config import Config, RunConfig, from_json, to_json
from ..messages.errors import RequestError
from ..storage.fingerprint import Fingerprint, file_digest
from ..storage.ownership import CHECKPOINT_MARKER, RUN_MARKER, bytes_writer, write_atomically, write_json
from .failures import FAILURE_FILE
from .results import RESULT_FILE, Result

CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.jsonl"
WEIGHTS_FILE = "model.safetensors"
AVERAGE_FILE = "model_ema.safetensors"
_POSITION_FILE = "position.json"
CURVES_FILE = "curves.png"
# is there from the result until pictures and the like are tried; a kill leaves it, and the same command makes them
PENDING_FILE = "extras-pending.json"
# what a checkpoint needs, and what may lie in one
CHECKPOINT_FILES = (WEIGHTS_FILE, "optimizer.pt", _POSITION_FILE, METRICS_FILE, RUN_MARKER)
_IN_CHECKPOINTS = (*CHECKPOINT_FILES, CHECKPOINT_MARKER, "average.safetensors", "scaler.json")
# all files of a run but those of its task, relative to its folder
LAYOUT = (
    CONFIG_FILE,
    ACTIVATION_FILE,
    METRICS_FILE,
    RESULT_FILE,
    RUN_MARKER,
    WEIGHTS_FILE,
    AVERAGE_FILE,
    CURVES_FILE,
    PENDING_FILE,
    FAILURE_FILE,
    *(f"checkpoints/step-????????/{name}" for name in _IN_CHECKPOINTS),
    "checkpoints/.step-*.partial/*",
    "checkpoints/.step-*.discarded/*",
    ".*.partial/*",
    "golu-*/*events.out.tfevents*",
)
_CONFIG_FORMAT = "golu-config/2"
_RUN_FORMAT = "golu-run/2"


def run_folder(config: RunConfig, task: str) -> Path:
    """OUTPUT_DIR/<task>/<recipe>/<activation>/seed<N>."""
    return config.output_dir / task / config.recipe / folder_name(config.activation) / f"seed{config.seed}"


@dataclass(frozen=True)
class RunIdentity:
    """A run's identity: everything that determines its numbers.

    Attributes:
        config: The resolved config.
        inputs: The fingerprints of the run's inputs: `data`, `data_whole` if all of it was read, `backbone`, and so on.
        environment: The versions of the code. They may change, with a warning.

    Raises:
        RequestError: The config has initial weights, but the task has not read them.
    """

    config: RunConfig
    inputs: Mapping[str, str]
    environment: Mapping[str, str]

    def __post_init__(self) -> None:
        if self.config.init_from is not None and "init_from" not in self.inputs:
            raise RequestError("--init-from: this task does not support initial weights")

    @classmethod
    def of(cls, config: RunConfig, inputs: Mapping[str, Fingerprint], environment: Mapping[str, str]) -> RunIdentity:
        """Return the identity of a run that reads these inputs; with `--check-data`, all of their content counts."""
        texts = {name: found.text for name, found in inputs.items()}
        if config.check_data:
            texts |= {f"{name}_whole": found.whole_text for name, found in inputs.items() if found.whole is not None}
        return cls(config, texts, environment)

    def to_json(self) -> dict[str, Any]:
        return {
            "format": _RUN_FORMAT,
            "config_sha256": config_sha256(self.config),
            "inputs": dict(self.inputs),
            "environment": dict(self.environment),
            "config": config_to_file(self.config),
        }

    def inputs_to_result(self) -> dict[str, Any]:
        """What result.json says of the inputs: the data, all of its content if that was read, and the others."""
        found: dict[str, Any] = {"fingerprint": self.inputs["data"]}
        whole = {name: text for name, text in self.inputs.items() if name.endswith("_whole")}
        others = {name: text for name, text in self.inputs.items() if name != "data" and name not in whole}
        if others:
            found["inputs"] = others
        return found | ({"content": whole} if whole else {})


def config_to_file(config: RunConfig) -> dict[str, Any]:
    """Return the content of config.json."""
    return {"format": _CONFIG_FORMAT, **to_json(config)}


def write_config(folder: Path, config: RunConfig) -> None:
    """Writes config.json, and beside it the file that the activation is of, each whole or not at all."""
    loaded = loaded_code(config.activation)
    if loaded is not None:
        write_atomically(folder / ACTIVATION_FILE, bytes_writer(loaded))
    write_json(folder / CONFIG_FILE, config_to_file(config))


def read_config(folder: Path, config_type: type[Config]) -> Config:
    """The config of a run folder; RequestError where there is none or it cannot be read."""
    return config_from_file(_config_values(folder), config_type, folder / CONFIG_FILE)


def read_recipe(folder: Path) -> str:
    """The recipe of a run folder, of any task; RequestError where there is none or it cannot be read."""
    values = _config_values(folder)
    return str(values.get("recipe", "")) if isinstance(values, dict) else ""


def read_activation_source(folder: Path) -> str:
    """What the code of a run's activation is, of any task; empty for a built-in one, or where no config says."""
    values = _config_values(folder) if (folder / CONFIG_FILE).exists() else {}
    return str(values.get("activation_source", "")) if isinstance(values, dict) else ""


def read_average(folder: Path) -> bool:
    """Return whether a run of any task evaluated the average of its weights."""
    values = _config_values(folder)
    average = values.get("average") if isinstance(values, dict) else None
    return isinstance(average, dict) and bool(average.get("evaluate"))


def _config_values(folder: Path) -> Any:
    path = folder / CONFIG_FILE
    try:
        return regular_json(path)
    except FileNotFoundError:
        raise RequestError(f"{folder} is not a run folder: it has no {CONFIG_FILE}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(f"{path} cannot be read: {error}") from None


def config_from_file(values: Any, config_type: type[Config], path: Path) -> Config:
    """Return the config in JSON values from a file; raise RequestError if it is malformed or of another version."""
    if not isinstance(values, dict):
        raise RequestError(f"{path} is not a config: it holds no object")
    written_as = values.get("format")
    if written_as != _CONFIG_FORMAT:
        version = "version 0.1 of golu" if written_as is None else f"another version of golu ({written_as})"
        raise RequestError(f"{path} was written by {version}, and only that version can use it")
    return from_json(config_type, {name: value for name, value in values.items() if name != "format"})


def append_metrics(folder: Path, line: dict[str, Any]) -> None:
    """Append a line to metrics.jsonl and flush it to disk."""
    with (folder / METRICS_FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def damaged_files(folder: Path, result: Result) -> list[str]:
    """Return a finished run's files that are missing or whose checksums differ from result.json."""
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


def damaged_settings(folder: Path, config_type: type[Config], result: Result) -> list[str]:
    """Which of the files that say what a finished run is are missing, or are not of its result."""
    problems = []
    if not (folder / RUN_MARKER).is_file():
        problems.append(f"{folder / RUN_MARKER} is missing")
    try:
        if config_sha256(read_config(folder, config_type)) != result.config_sha256:
            problems.append(f"{folder / CONFIG_FILE} is not the config that {RESULT_FILE} names")
    except RequestError as error:
        problems.append(str(error))
    return problems
