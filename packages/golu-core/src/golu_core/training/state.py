"""What a checkpoint holds: weights, optimizer, moving average, loss scale, and where the run is."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from torch import nn


@dataclass
class Position:
    """Where a run is.

    Attributes:
        step: optimizer steps done.
        epoch, step_in_epoch: the next step to do.
        train_seconds, eval_seconds: so far, over all continuations.
        loss_sum, loss_count: the training loss since the last line of metrics.
        best: best test metrics so far, with their step.
        metrics_bytes: length of metrics.jsonl.
    """

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    loss_sum: float = 0.0
    loss_count: int = 0
    best: dict[str, float] = field(default_factory=dict)
    metrics_bytes: int = 0

    @property
    def epoch_of_last_step(self) -> int:
        """The epoch to which the last step belongs."""
        return self.epoch - 1 if self.step_in_epoch == 0 and self.step > 0 else self.epoch


@dataclass(frozen=True)
class TrainingState:
    """The objects whose state a checkpoint saves; random numbers need none, being functions of the position.

    Attributes:
        model: the bare model.
        optimizer: with `state_dict` and `load_state_dict`.
        average: moving average of the weights, if there is one.
        scaler: of fp16, if there is one.
    """

    model: nn.Module
    optimizer: Any
    average: nn.Module | None
    scaler: Any

    def writers(self, position: Position) -> dict[str, Callable[[Path], None]]:
        """File names of a checkpoint, each with the function that writes it."""
        files: dict[str, Callable[[Path], None]] = {
            "model.safetensors": lambda path: save_model(self.model, str(path)),
            "optimizer.pt": lambda path: torch.save(self.optimizer.state_dict(), path),
            "position.json": lambda path: _write_json(path, dataclasses.asdict(position)),
        }
        average = self.average
        if average is not None:
            files["average.safetensors"] = lambda path: save_model(average, str(path))
        if self.scaler is not None:
            files["scaler.json"] = lambda path: _write_json(path, self.scaler.state_dict())
        return files

    def restore(self, checkpoint: Path) -> Position:
        """Loads a checkpoint into the objects and returns where it stands."""
        load_model(self.model, checkpoint / "model.safetensors")
        optimizer = torch.load(checkpoint / "optimizer.pt", map_location="cpu", weights_only=True)
        self.optimizer.load_state_dict(optimizer)
        if self.average is not None:
            load_model(self.average, checkpoint / "average.safetensors")
        if self.scaler is not None:
            self.scaler.load_state_dict(json.loads((checkpoint / "scaler.json").read_text()))
        return read_position(checkpoint)


def read_position(checkpoint: Path) -> Position:
    """Where a checkpoint stands."""
    return Position(**json.loads((checkpoint / "position.json").read_text()))


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")
