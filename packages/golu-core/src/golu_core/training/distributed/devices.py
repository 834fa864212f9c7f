"""The Accelerator of a run: devices, processes, precision."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, parse_flag_from_env

from ..config.run_config import RunConfig
from ..messages.errors import RequestError


def default_device() -> torch.device:
    """Return the device of a single-process program: a GPU if one is available, unless the CPU was requested."""
    if parse_flag_from_env("ACCELERATE_USE_CPU"):
        return torch.device("cpu")
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator or torch.device("cpu")


def build_accelerator(config: RunConfig, folder: Path) -> Accelerator:
    """Return an Accelerator for the launcher's processes, which form one process group even without a GPU.

    Raises:
        RequestError: The processes cannot see each other, or the device does not support the precision.
    """
    use_cpu = default_device().type == "cpu"
    if config.mixed_precision == "fp16" and use_cpu:
        raise RequestError("--mixed-precision fp16 needs a GPU; on a CPU use bf16 or no")
    if config.compile and use_cpu and not any(map(shutil.which, _compilers())):
        raise RequestError("--compile needs a C++ compiler on a CPU: install g++ or clang++, or name one in CXX")
    if config.deterministic and use_cpu:
        raise RequestError("--deterministic selects GPU kernels; those of a CPU are deterministic anyway: leave it out")
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
    accelerator = Accelerator(
        cpu=use_cpu,
        mixed_precision=config.mixed_precision,
        log_with=None if config.tracker == "none" else config.tracker,
        project_dir=str(folder),
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
    )
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched != accelerator.num_processes:
        raise RequestError(
            f"the launcher started {launched} processes, but each of them runs alone: "
            f"on a machine without GPUs set ACCELERATE_USE_CPU=true"
        )
    return accelerator


def _compilers() -> tuple[str, ...]:
    """Where torch's Inductor looks for a compiler."""
    return (os.environ.get("CXX", "g++"), "g++", "clang++", "g++-10", "cl")
