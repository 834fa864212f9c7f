"""A language model sharded by torch's `fully_shard` over two processes on the CPU."""

from __future__ import annotations

import pytest

from sharded_lm import train_save_and_load
from sharding import in_two_processes


@pytest.mark.slow
def test_a_sharded_model_has_the_losses_of_a_whole_one_and_checkpoints_that_either_continues(tmp_path):
    in_two_processes(train_save_and_load, tmp_path)
