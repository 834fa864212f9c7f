"""The folder of a run: where it is, whose it is, and its small files."""

from __future__ import annotations

import atexit
import dataclasses
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .checkpoint import write_json
from .config import Config, RunConfig, differences, from_json, to_json
from .errors import RequestError

if TYPE_CHECKING:
    from torch import nn

CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.jsonl"


def run_folder(config: RunConfig, task: str) -> Path:
    """OUTPUT_DIR/<task>/<recipe>/<activation>/seed<N>."""
    return config.output_dir / task / config.recipe / config.activation / f"seed{config.seed}"


def check_owner(folder: Path, config: RunConfig) -> None:
    """Raises RequestError if a run of another config lies in the folder; the message has the fields that differ."""
    if config.overwrite or not (folder / CONFIG_FILE).exists():
        return
    differing = differences(config, read_config(folder, type(config)))
    if differing:
        raise RequestError(
            f"{folder} holds a run of another config:\n  "
            + "\n  ".join(differing)
            + "\nuse another --output-dir, or --overwrite to delete that run"
        )


def write_config(folder: Path, config: RunConfig) -> None:
    """Writes config.json, whole or not at all."""
    write_json(folder / CONFIG_FILE, to_json(config))


def read_config(folder: Path, config_type: type[Config]) -> Config:
    """The config of a run folder; RequestError where there is none or it cannot be read."""
    path = folder / CONFIG_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RequestError(f"{folder} is no run folder: it has no {CONFIG_FILE}") from None
    except (OSError, ValueError) as error:
        raise RequestError(f"{path} cannot be read: {error}") from None
    return from_json(config_type, values)


def append_metrics(folder: Path, line: dict[str, Any]) -> None:
    """Adds a line to metrics.jsonl."""
    with (folder / METRICS_FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def metrics_length(folder: Path) -> int:
    """Bytes of metrics.jsonl."""
    path = folder / METRICS_FILE
    return path.stat().st_size if path.exists() else 0


def cut_metrics(folder: Path, length: int) -> None:
    """Takes back what was written behind the checkpoint from which a run continues."""
    if metrics_length(folder) > length:
        os.truncate(folder / METRICS_FILE, length)


@dataclass(frozen=True)
class EvaluationFlags:
    """Where and how a finished run is evaluated."""

    data_dir: Path | None = None
    """Folder that holds the data sets; by default the one of the run."""
    num_workers: int | None = None
    """Loader processes."""
    eval_batch: int | None = None
    """Samples that a device takes at once."""


def config_to_evaluate(folder: Path, config_type: type[Config], arguments: Sequence[str], program: str) -> Config:
    """The config of a finished run with the flags of `evaluate RUN_DIR`."""
    import tyro

    flags = tyro.cli(EvaluationFlags, args=list(arguments), prog=f"{program} evaluate RUN_DIR")
    changes = {name: value for name, value in dataclasses.asdict(flags).items() if value is not None}
    return dataclasses.replace(read_config(folder, config_type), **changes, tracker="none", overwrite=False)


@cache
def dry_run_folder() -> Path:
    """A temporary folder for the sample data of a dry run, which leaves nothing behind."""
    folder = tempfile.TemporaryDirectory(prefix="golu-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


def load_weights(model: nn.Module, path: Path) -> None:
    """Loads a run's safetensors into a model; RequestError where they are missing or do not fit."""
    from safetensors.torch import load_model

    if not path.exists():
        raise RequestError(f"{path} is missing: the run is not finished; the command that trains it continues it")
    try:
        load_model(model, path)
    except Exception as error:  # safetensors and torch each have their own
        raise RequestError(f"{path} does not fit the model of its config: {str(error)[:300]}") from None
