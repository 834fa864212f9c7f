"""What two processes do in the test of sharded training."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from golu_core.training.config.optim import AdamW, build_optimizer
from golu_core.training.loop.state import Position, TrainingState, is_sharded
from golu_core.training.runs.checkpoint import save_checkpoint
from golu_lm.config import Model
from golu_lm.model import GPT

MODEL = Model(layers=2, heads=2, width=16, context=12, vocabulary=51, dropout=0.0, bias=True)


def shard(model: GPT) -> GPT:
    mesh = torch.distributed.init_device_mesh("cpu", (2,))
    for block in model.h:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return build_optimizer(model, AdamW(lr=1e-2, weight_decay=0.1, decay="matrices"), torch.device("cpu"))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, batches: torch.Tensor, rank: int | None) -> list[float]:
    """Steps on the whole batch, or on a rank's half of it; returns the loss of the whole batch at each."""
    losses = []
    for batch in batches:
        rows = batch if rank is None else batch.chunk(2)[rank]
        loss = model(rows[:, :-1], rows[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        value = loss.detach().clone()
        if rank is not None:
            torch.distributed.all_reduce(value)
            value /= 2
        losses.append(value.item())
    return losses


def train_save_and_load(rank: int, folder: Path) -> None:
    torch.manual_seed(0)
    whole = GPT(MODEL, "golu")
    sharded = shard(copy.deepcopy(whole))
    assert is_sharded(sharded) and not is_sharded(whole)
    batches = torch.randint(51, (8, 4, 13))
    optimizers = optimizer_of(whole), optimizer_of(sharded)
    expected = train(whole, optimizers[0], batches[:4], None)
    assert train(sharded, optimizers[1], batches[:4], rank) == pytest.approx(expected, rel=1e-4)

    files = TrainingState(sharded, optimizers[1], None, None).writers(Position(step=4))
    if rank == 0:
        save_checkpoint(folder, 4, files, keep=2)
    torch.distributed.barrier()
    expected = train(whole, optimizers[0], batches[4:], None)
    going_on = train(sharded, optimizers[1], batches[4:], rank)
    assert going_on == pytest.approx(expected, rel=1e-4)

    torch.manual_seed(1)
    restored, unsharded = shard(GPT(MODEL, "golu")), GPT(MODEL, "golu")
    for model, part in ((restored, rank), (unsharded, None)):
        optimizer = optimizer_of(model)
        position = TrainingState(model, optimizer, None, None).restore(folder / "step-00000004")
        assert position.step == 4
        assert is_sharded(model) == isinstance(optimizer.state[next(model.parameters())]["exp_avg"], DTensor)
        losses = train(model, optimizer, batches[4:], part)
        assert losses == (going_on if part is not None else pytest.approx(going_on, rel=1e-4))
