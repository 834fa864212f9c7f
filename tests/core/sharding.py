"""Two gloo processes on the CPU for tests of sharded models, and what they run.

A module of its own: the processes are spawned, and a spawned process finds its function by importing it.
"""

from __future__ import annotations

import copy
import socket
from collections.abc import Callable
from typing import Any

import torch
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.fsdp import fully_shard

from golu_core import GoLU


def in_two_processes(function: Callable[..., None], *arguments: Any) -> None:
    """Runs `function(rank, *arguments)` in two processes of one gloo group; raises where one of them fails."""
    mp.spawn(_in_group, args=(_free_port(), function, arguments), nprocs=2)


def _in_group(rank: int, port: int, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    function(rank, *arguments)
    torch.distributed.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def train_sharded(rank: int) -> None:
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
