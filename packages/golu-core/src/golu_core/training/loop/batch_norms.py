"""The samples that batch norm normalizes over, in a run with one or many processes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..config.fields import BatchNorm
from ..config.run_config import RunConfig
from ..data.orders import BatchPlan
from ..distributed.processes import Processes
from ..messages.errors import RequestError
from ..tasks.opening import LabeledLine


def check_batch_norm(model: nn.Module, batch_norm: BatchNorm, config: RunConfig, plan: BatchPlan) -> None:
    """Raise RequestError if `per_process` would make a run's numbers depend on the number of processes.

    Args:
        model: The network, as built.
        batch_norm: The recipe's choice.
        config: The run's configuration; `micro_batch_size` is the number of samples per statistic.
        plan: How the batch is split among the processes.
    """
    if batch_norm == "synchronized":
        return
    if not _has_batch_norm(model):
        raise RequestError("--batch-norm per_process: this network has no batch norm: leave it out")
    if config.micro_batch_size is None:
        raise RequestError(
            "--batch-norm per_process needs --micro-batch-size, the number of samples that batch norm sees: "
            "otherwise it would depend on the number of processes"
        )
    if plan.device_size != config.micro_batch_size:
        raise RequestError(
            f"batch norm is to see {config.micro_batch_size} samples (--micro-batch-size) on each process, but a share "
            f"of {plan.global_size // plan.processes} is split into micro-batches of {plan.device_size}: use fewer "
            f"processes, or another --micro-batch-size"
        )


def batch_norm_lines(
    model: nn.Module, batch_norm: BatchNorm, plan: BatchPlan, processes: Processes
) -> Sequence[LabeledLine]:
    """Return a line for the opening block if batch norm normalizes over fewer samples than a step has."""
    common = processes.count if batch_norm == "synchronized" and processes.device.type == "cuda" else 1
    size = plan.device_size * common
    if size == plan.global_size or not _has_batch_norm(model):
        return []
    return [("batch norm", f"over {size} samples at a time, of the {plan.global_size} of a step")]


@torch.no_grad()
def average_statistics(model: nn.Module, processes: Processes) -> None:
    """Replace running statistics by their means over the processes, as timm's `--dist-bn reduce` does."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            for statistic in (module.running_mean, module.running_var):
                if statistic is not None:
                    statistic.copy_(processes.sum(statistic) / processes.count)


def _has_batch_norm(model: nn.Module) -> bool:
    return any(isinstance(module, _BatchNorm) for module in model.modules())
