"""The content of a checkpoint: weights, optimizer, weight average, loss scale, and the run's position."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file, save_model
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor

from ...regular_files import regular_json
from ..messages.errors import RequestError
from ..storage.weights_files import load_into, read_saved, read_tensors


@dataclass
class Position:
    """A run's position in training.

    Attributes:
        step: The number of completed optimizer steps.
        epoch, step_in_epoch: The epoch and index of the next step.
        train_seconds, eval_seconds: The total training and evaluation times, including earlier sessions of the run.
        loss_sum, loss_count: The sum and number of training losses since the last line of metrics.jsonl.
        best: The best test metrics so far, with their step.
    """

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    loss_sum: float = 0.0
    loss_count: int = 0
    best: dict[str, float] = field(default_factory=dict)

    @property
    def epoch_of_last_step(self) -> int:
        """The epoch of the last completed step."""
        return self.epoch - 1 if self.step_in_epoch == 0 and self.step > 0 else self.epoch


@dataclass(frozen=True)
class TrainingState:
    """The objects whose state a checkpoint saves. Random states are not saved: they follow from the position.

    The full model and optimizer states are saved by parameter name, so a run can resume with a different number of
    processes, sharded or not.

    Attributes:
        model: The unwrapped model, sharded by FSDP2 or not.
        optimizer: The torch optimizer.
        average: The average of the weights, if the recipe keeps one.
        scaler: The gradient scaler, if training in fp16.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: nn.Module | None
    scaler: Any

    def writers(self, position: Position) -> dict[str, Callable[[Path], None]]:
        """Return a checkpoint's file names, each with the function that writes it. Every process must call this."""
        optimizer = get_optimizer_state_dict(self.model, self.optimizer, options=_whole(self.model))
        files: dict[str, Callable[[Path], None]] = {
            "model.safetensors": weights_writer(self.model),
            "optimizer.pt": lambda path: torch.save(optimizer, path),
            "position.json": lambda path: _write_json(path, dataclasses.asdict(position)),
        }
        if self.average is not None:
            files["average.safetensors"] = weights_writer(self.average)
        if self.scaler is not None:
            files["scaler.json"] = lambda path: _write_json(path, self.scaler.state_dict())
        return files

    def restore(self, checkpoint: Path) -> Position:
        """Load a checkpoint into the objects and return its position.

        Raises:
            RequestError: A file of the checkpoint cannot be read or does not match the objects.
        """
        position = _read_position(checkpoint)
        with _named(checkpoint / "model.safetensors") as weights:
            if is_sharded(self.model):
                whole: dict[str, Any] = read_tensors(weights)
                set_model_state_dict(self.model, whole, options=_whole(self.model))
            else:
                load_into(self.model, weights)
        with _named(checkpoint / "optimizer.pt") as path:
            set_optimizer_state_dict(self.model, self.optimizer, read_saved(path), options=_whole(self.model))
        if self.average is not None:
            with _named(checkpoint / "average.safetensors") as path:
                load_into(self.average, path)
        if self.scaler is not None:
            with _named(checkpoint / "scaler.json") as path:
                self.scaler.load_state_dict(regular_json(path))
        return position


@contextmanager
def _named(path: Path) -> Iterator[Path]:
    """Name the checkpoint file in any error that reading it raises."""
    try:
        yield path
    except RequestError:  # from `weights_files`, which names the file
        raise
    except Exception as error:  # torch raises many types
        problem = str(error).strip().partition("\n")[0][:300] or type(error).__name__
        raise RequestError(f"{path} cannot be restored: {problem}") from None


def is_sharded(model: nn.Module) -> bool:
    """Whether the model's parameters are sharded across processes."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def weights_writer(model: nn.Module) -> Callable[[Path], None]:
    """Return a function that writes the full model as safetensors. Every process calls this; one calls the result."""
    if not is_sharded(model):
        return lambda path: save_model(model, str(path))
    whole: dict[str, Any] = get_model_state_dict(model, options=_whole(model))
    return lambda path: save_file({name: tensor.contiguous() for name, tensor in whole.items()}, path)


def _whole(model: nn.Module) -> StateDictOptions:
    sharded = is_sharded(model)  # gathering an unsharded model would only copy it
    return StateDictOptions(full_state_dict=sharded, cpu_offload=sharded)


def _read_position(checkpoint: Path) -> Position:
    """Return a checkpoint's position; raise RequestError if its file is malformed."""
    path = checkpoint / "position.json"
    try:
        position = Position(**regular_json(path))
        counts = (position.step, position.epoch, position.step_in_epoch, position.loss_count)
        seconds = (position.train_seconds, position.eval_seconds)
        possible = all(type(n) is int and 0 <= n < 2**53 for n in counts) and all(0 <= t < 1e18 for t in seconds)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise RequestError(f"{path} cannot be read: {error}") from None
    if not possible or not isinstance(position.best, dict):
        raise RequestError(f"{path} has impossible numbers: {str(position)[:300]}")
    return position


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")
