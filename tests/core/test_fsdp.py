"""GoLU in a sharded model: two processes on the CPU, torch's `fully_shard`."""

from __future__ import annotations

import copy
import socket

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.fsdp import fully_shard

from golu_core import GoLU


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def train_sharded(rank: int, port: int) -> None:
    address = f"tcp://127.0.0.1:{port}"
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    torch.manual_seed(0)
    whole = nn.Sequential(nn.Linear(6, 16), GoLU(), nn.Linear(16, 2)).double()
    sharded = copy.deepcopy(whole)
    mesh = torch.distributed.init_device_mesh("cpu", (2,))
    for layer in (sharded[0], sharded[2], sharded):
        fully_shard(layer, mesh=mesh)
    x = torch.randn(8, 6, dtype=torch.float64)
    for model, rows in ((whole, x), (sharded, x.chunk(2)[rank])):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            model(rows).square().mean().backward()
            optimizer.step()
    for expected, shard in zip(whole.parameters(), sharded.parameters(), strict=True):
        torch.testing.assert_close(shard.full_tensor(), expected.detach())
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_a_sharded_model_trains_like_a_whole_one():
    mp.spawn(train_sharded, args=(free_port(),), nprocs=2)
