"""A task as small as can be: a line is fitted to eight points, so that a run takes no time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from golu_core.training.config.optim import Sgd, build_optimizer
from golu_core.training.config.run_config import EpochConfig
from golu_core.training.config.schedules import Constant
from golu_core.training.data.orders import EpochOrder, SampleKey
from golu_core.training.loop.run import Run
from golu_core.training.runs.results import SwappedActivations
from golu_core.training.storage.fingerprint import tensors_fingerprint
from golu_core.training.tasks.task import Metric, Task


@dataclass(frozen=True, kw_only=True)
class TinyConfig(EpochConfig):
    """Fits a line."""

    @property
    def default_activation(self) -> str:
        return "relu"

    @property
    def primary_metric(self) -> str:
        return "loss"


RECIPES = {
    "line": TinyConfig(
        recipe="line", epochs=2, batch_size=4, optim=Sgd(lr=0.1, momentum=0.0, weight_decay=0.0), schedule=Constant()
    )
}
TASK: Task[TinyConfig] = Task(
    name="tiny",
    title="Tiny",
    package="tiny_task",
    recipes=RECIPES,
    metrics={"loss": Metric("loss", 5, False)},
    unit="points/s",
    train="tiny_task:train",
    evaluate="tiny_task:train",
)


class Points:
    """x and y of a line with a bend."""

    in_memory = True
    x = torch.arange(8.0)[:, None] / 8
    y = 3 * x - 1 + x**2

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self.x)

    def __getitems__(self, keys: list[SampleKey]) -> tuple[Tensor, Tensor]:
        rows = [key.sample for key in keys]
        self.asked += rows
        return self.x[rows], self.y[rows]


def tiny_config(folder: Path, **changes: Any) -> TinyConfig:
    """The recipe in a folder, with changed fields."""
    return replace(RECIPES["line"], output_dir=folder / "runs", data_dir=folder / "data", **changes)


def prepared(run: Run[TinyConfig], points: Points) -> nn.Module:
    """A model that the run has taken."""
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    order = EpochOrder(len(points), run.config.batch_size, run.config.seed)
    optimizer = build_optimizer(model, run.config.optim, run.device)
    inputs = {"data": tensors_fingerprint({"x": points.x, "y": points.y})}
    return run.prepare(model, optimizer, points, order, inputs=inputs)


def loss_of(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Mean squared error of (N, 1) predictions."""
    return nn.functional.mse_loss(model(batch[0]), batch[1])


def train(config: TinyConfig, points: Points | None = None) -> None:
    """The whole run."""
    points = points or Points()
    with Run(config, TASK) as run:
        if run.report_if_finished():
            return
        model = prepared(run, points)
        for _ in run.epochs():
            for micro_batch in run.micro_batches():
                run.backward(micro_batch, loss_of(model, micro_batch.batch))
            run.report({"loss": float(loss_of(run.evaluated_model, (points.x, points.y)).detach())})
        run.finish(
            {"loss": 0.0},
            dataset="points",
            model_name="line",
            data={"train": 8, "test": 8},
            swapped=SwappedActivations(0, []),
        )
