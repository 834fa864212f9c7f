"""Runs golu-vision as a person would: as a process, on small real images."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

FAST = ["--batch-size", "16", "--log-every", "1", "--checkpoint-every", "2", "--schedule.warmup-epochs", "0"]
"""Flags that make `digits` a matter of seconds."""


def command(*arguments: str, processes: int = 1) -> list[str]:
    if processes == 1:
        return [sys.executable, "-m", "golu_vision", *arguments]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [sys.executable, *launcher, "-m", "golu_vision", *arguments]


def environment(**changes: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return {**kept, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", **changes}


def run_cli(*arguments: str, cwd: Path, processes: int = 1, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments, processes=processes),
        cwd=cwd,
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def start_cli(*arguments: str, cwd: Path, processes: int = 1) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments, processes=processes),
        cwd=cwd,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_all(process: subprocess.Popen[str]) -> None:
    """`kill -9` for a process and all its children: a launcher's workers would live on."""
    launcher = psutil.Process(process.pid)
    for victim in [*launcher.children(recursive=True), launcher]:
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()
    process.communicate()


def steps_logged(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    if not path.exists():
        return 0
    lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
    return int(json.loads(lines[-1])["step"]) if lines else 0


def wait_for_step(process: subprocess.Popen[str], folder: Path, step: int) -> bool:
    """Waits until a run has logged a step; False if it ended before."""
    deadline = time.monotonic() + 120
    while steps_logged(folder) < step:
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.005)
    return True


def metrics_without_time(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]
