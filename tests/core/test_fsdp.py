"""GoLU in a sharded model: two processes on the CPU, torch's `fully_shard`."""

from __future__ import annotations

import pytest

from sharding import in_two_processes, train_sharded


@pytest.mark.slow
def test_a_sharded_model_trains_like_a_whole_one():
    in_two_processes(train_sharded)
