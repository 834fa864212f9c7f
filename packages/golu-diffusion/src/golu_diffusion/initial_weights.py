"""Weights that a run starts from: those of another run, or of a file."""

from __future__ import annotations

from functools import partial

from golu_core.training import Processes
from golu_core.training.finetuning import Start, read_given, start_given

from .config import DiffusionConfig
from .model import UNet
from .task import TASK


def start_of_run(config: DiffusionConfig, model: UNet, processes: Processes) -> Start | None:
    """Loads what `--init-from` names; None where it names nothing. No library publishes weights of this UNet."""
    return start_given(config, TASK, model, processes, partial(read_given, libraries={}))
