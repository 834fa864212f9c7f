"""Two machines, as two network namespaces: one is lost, both are started again."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import environment, kill_all, same_outcome, wait_for_step
from faults import run_folder
from lm_program import LM, TINY

ARGUMENTS = ["train", "babygpt-pydocs", *TINY, "--steps", "24", "--data-dir"]
PATIENCE_S = 120


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """The names of two network namespaces that reach each other alone, as 10.77.0.1 and 10.77.0.2."""
    names = [f"golu-{os.getpid()}-{number}" for number in (1, 2)]
    ends = [f"golu{number}" for number in (1, 2)]
    if shutil.which("ip") is None:
        pytest.skip("needs iproute2")
    with contextlib.ExitStack() as stack:
        try:
            for name in names:
                ip("netns", "add", name)
                stack.callback(ip, "netns", "del", name)
            ip("link", "add", ends[0], "netns", names[0], "type", "veth", "peer", "name", ends[1], "netns", names[1])
            for number, (name, end) in enumerate(zip(names, ends, strict=True), start=1):
                ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", end)
                for device in ("lo", end):
                    ip("-n", name, "link", "set", device, "up")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"needs the right to make network namespaces: {error.stderr.decode().strip()}")
        yield names


def start(host: str, rank: int, data: Path, cwd: Path) -> subprocess.Popen[str]:
    """What a person types on one of the two machines."""
    launcher = ["torch.distributed.run", "--nnodes", "2", "--node-rank", str(rank), "--nproc-per-node", "1"]
    launcher += ["--master-addr", "10.77.0.1", "--master-port", "29511", "-m", "golu_lm"]
    with (cwd / f"{rank}.log").open("w") as log:
        return subprocess.Popen(
            ["ip", "netns", "exec", host, sys.executable, "-m", *launcher, *ARGUMENTS, str(data)],
            cwd=cwd,
            env=environment(GLOO_SOCKET_IFNAME=f"golu{rank + 1}"),
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
        )


@pytest.mark.slow
def test_a_lost_machine(hosts, tmp_path):
    shared, alone, data = (tmp_path / name for name in ("shared", "alone", "data"))
    shared.mkdir()
    alone.mkdir()
    whole = LM.run(*ARGUMENTS, str(data), cwd=alone, processes=2)
    assert whole.returncode == 0, whole.stderr
    first, second = (start(host, rank, data, shared) for rank, host in enumerate(hosts))
    assert wait_for_step(first, shared / run_folder("lm"), 5)
    kill_all(second)
    assert first.wait(PATIENCE_S) != 0
    assert not (shared / run_folder("lm") / "result.json").exists()
    again = [start(host, rank, data, shared) for rank, host in enumerate(hosts)]
    statuses = [process.wait(PATIENCE_S) for process in again]
    assert statuses == [0, 0], (shared / "0.log").read_text()[-2000:]
    assert "continuing" in (shared / "0.log").read_text()
    same_outcome(shared / run_folder("lm"), alone / run_folder("lm"))
