"""Over which samples batch norm normalizes, and what of it is refused, said, and shared among processes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from golu_core.training import EpochConfig
from golu_core.training.data.orders import plan_batches
from golu_core.training.loop.batch_norms import average_statistics, batch_norm_lines, check_batch_norm
from golu_core.training.messages.errors import RequestError
from golu_core.training.tasks.task import installed_tasks, recipes_of

NORMED = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def processes(count: int, device: str = "cuda", others: float = 0.0) -> Any:
    """Processes of which the others hold `others` in every element."""
    return SimpleNamespace(
        count=count,
        device=SimpleNamespace(type=device),
        sum=lambda values: values + (count - 1) * others,
    )


@pytest.mark.parametrize(
    ("batch_norm", "count", "micro", "expected"),
    [
        ("per_process", 4, 256, "over 256 samples at a time, of the 1024 of a step"),
        ("per_process", 1, 256, "over 256 samples at a time, of the 1024 of a step"),
        ("synchronized", 1, 256, "over 256 samples at a time, of the 1024 of a step"),
        ("synchronized", 2, 256, "over 512 samples at a time, of the 1024 of a step"),
        ("synchronized", 4, 256, None),
        ("synchronized", 1, None, None),
    ],
)
def test_a_line_says_where_batch_norm_sees_less_than_a_step(batch_norm, count, micro, expected):
    plan = plan_batches(1024, count, micro)
    check_batch_norm(NORMED, batch_norm, EpochConfig(batch_size=1024, micro_batch_size=micro), plan)
    lines = batch_norm_lines(NORMED, batch_norm, plan, processes(count))
    assert [text for _, text in lines] == ([] if expected is None else [expected])
    assert not batch_norm_lines(nn.Linear(2, 2), batch_norm, plan, processes(count))


def test_processes_without_cuda_normalize_by_their_own_samples():
    assert batch_norm_lines(NORMED, "synchronized", plan_batches(16, 2), processes(2, device="cpu"))


@pytest.mark.parametrize(
    ("model", "micro", "count", "message"),
    [
        (nn.Linear(2, 2), 256, 1, "has no batch norm"),
        (NORMED, None, 1, "needs --micro-batch-size"),
        (NORMED, 256, 8, "a share of 128 is split into micro-batches of 128: use fewer processes"),
        (NORMED, 384, 1, "a share of 1024 is split into micro-batches of 256"),
    ],
)
def test_what_would_depend_on_the_number_of_processes_is_refused(model, micro, count, message):
    config = EpochConfig(batch_size=1024, micro_batch_size=micro)
    plan = plan_batches(1024, count, micro)
    check_batch_norm(model, "synchronized", config, plan)
    with pytest.raises(RequestError, match=message):
        check_batch_norm(model, "per_process", config, plan)


def test_running_statistics_become_means_over_the_processes():
    model = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2, track_running_stats=False))
    model[0].running_mean.fill_(1.0)
    average_statistics(model, processes(2, others=5.0))
    assert torch.equal(model[0].running_mean, torch.full((2,), 3.0))
    assert torch.equal(model[0].running_var, torch.full((2,), 3.0))
    assert int(model[0].num_batches_tracked) == 0


def test_which_recipes_are_published_without_synchronization():
    chosen = {
        name: config.micro_batch_size
        for task in installed_tasks().values()
        for name, config in recipes_of(task).items()
        if getattr(config, "batch_norm", "synchronized") == "per_process"
    }
    assert chosen == {"efficientnet-b0-imagenet": 384, "tinyvit-21m-imagenet": 256}
