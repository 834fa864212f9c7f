"""`--init-from`: a run that starts from the weights of a Hugging Face model, and has its sizes."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from golu_core.training.errors import RequestError
from golu_core.training.fingerprint import Fingerprint, tensors_fingerprint
from golu_core.training.ownership import RUN_MARKER, read_marker
from golu_core.training.processes import Processes
from golu_core.training.run_files import read_config, run_folder

from .config import LmConfig
from .task import TASK
from .translation.config import TranslationConfig

LmOrTranslation = TypeVar("LmOrTranslation", LmConfig, TranslationConfig)


def with_sizes_of_source(config: LmOrTranslation) -> LmOrTranslation:
    """The config with the sizes of the network that it starts from, or of the run in its folder that started so."""
    if config.init_from is None:
        return config
    with contextlib.suppress(RequestError):
        there = read_config(run_folder(config, TASK.name), type(config))
        if there.init_from == config.init_from:
            return dataclasses.replace(config, model=there.model)
    sized_like, _ = _readers(config)
    return dataclasses.replace(config, model=sized_like(config.init_from, config.model))


def start_weights(
    config: LmConfig | TranslationConfig, model: nn.Module, processes: Processes
) -> dict[str, Fingerprint]:
    """Loads the weights that `init_from` names, and returns their fingerprint; none where it names none.

    A run that has a checkpoint continues also where the source is gone: everything is in the checkpoint.
    """
    if config.init_from is None:
        return {}
    from .hugging_face import activation_of

    _, load = _readers(config)
    folder = run_folder(config, TASK.name)
    try:
        load(model, config.init_from)
        theirs = activation_of(config.init_from)
    except RequestError:
        known = (read_marker(folder, RUN_MARKER) or {}).get("inputs", {}).get("init_from")
        if known is None or config.overwrite or not any((folder / "checkpoints").glob("step-*")):
            raise
        processes.warn(f"{config.init_from} cannot be read any more; the run continues from its checkpoint")
        return {"init_from": Fingerprint(lambda: str(known))}
    if theirs != config.activation:
        processes.warn(f"{config.init_from} was trained with {theirs}; the run goes on with {config.activation}")
    return {"init_from": tensors_fingerprint(model.state_dict())}


def _readers(config: LmConfig | TranslationConfig) -> tuple[Callable[[str, Any], Any], Callable[[Any, str], None]]:
    """What reads a source's sizes, and what loads its weights."""
    if isinstance(config, TranslationConfig):
        from .translation import hugging_face as fsmt

        return fsmt.sized_like, fsmt.from_fsmt
    from . import hugging_face as gpt2

    return gpt2.sized_like, gpt2.load_hugging_face
