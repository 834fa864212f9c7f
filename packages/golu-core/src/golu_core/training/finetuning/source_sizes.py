"""The sizes of the network that `--init-from` loads, for tasks with networks of any size."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..config.run_config import Config
from ..messages.errors import RequestError
from ..runs.results import RESULT_FILE
from ..runs.run_files import read_config
from ..storage.ownership import RUN_MARKER
from ..tasks.task import Task

_HUB = "hf:"


def transformers_name(source: str) -> str | None:
    """Return the name or folder of the Hugging Face model that `--init-from` names; None for a run or a file."""
    path = Path(source).expanduser()
    return None if path.is_file() or _is_run(path) else source.removeprefix(_HUB)


def with_sizes_of_source(
    config: Config,
    task: Task[Any],
    like_run: Callable[[Config, Config], Config],
    like_model: Callable[[Config, str], Config],
) -> Config:
    """Return the config with the sizes of the network that it starts from.

    A run that has started keeps its sizes, even if the source has been deleted. A weights file does not store sizes,
    so the config's sizes must match it.

    Args:
        config: The config, with the sizes in its field `model`.
        task: Its task.
        like_run: Function of the config and a finished run's config that returns the config with the run's sizes.
        like_model: Function of the config and a Hugging Face model's name or folder that returns the config with the
            model's sizes.

    Raises:
        RequestError: The source cannot be read, or the task has no such network.
    """
    source = config.init_from
    if source is None or Path(source).expanduser().is_file():
        return config
    with contextlib.suppress(RequestError):
        there: Any = read_config(task.run_folder(config), type(config))
        if there.init_from == source:
            changed: dict[str, Any] = {"model": there.model}
            return dataclasses.replace(config, **changed)
    name = transformers_name(source)
    if name is None:
        return like_run(config, read_config(Path(source).expanduser(), type(config)))
    return like_model(config, name)


def _is_run(path: Path) -> bool:
    return any((path / name).exists() for name in (RESULT_FILE, RUN_MARKER))
