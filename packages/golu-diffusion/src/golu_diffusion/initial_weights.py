"""Initial weights of a run: from another run, or from a file."""

from __future__ import annotations

from functools import partial

from golu_core.training import Processes
from golu_core.training.finetuning import Start, read_given, start_given

from .config import DiffusionConfig
from .model import UNet
from .task import TASK


def start_of_run(config: DiffusionConfig, model: UNet, processes: Processes) -> Start | None:
    """Load the weights in `--init-from`; return None without it. No library publishes weights of this UNet."""
    return start_given(config, TASK, model, processes, partial(read_given, libraries={}))
