"""What computed a result: versions of all that the task's package depends on, the code's own revision, the machine."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

_MACHINE = {"device", "host_cpu", "host_cores", "system", "golu_on_cpu"}


def environment(device_name: str, distribution: str) -> dict[str, str]:
    """Return the versions of the code that computes a result, and the device.

    Args:
        device_name: The name of the device.
        distribution: The distribution of the task's package, whose dependencies are listed.
    """
    import torch

    from golu_core.activation.compute import native

    found = {"python": platform.python_version(), "cuda": str(torch.version.cuda), "device": device_name}
    found |= versions(distribution)
    found |= _code_revision()
    found["host_cpu"] = _processor_name()
    found["host_cores"] = str(os.cpu_count())
    found["system"] = platform.platform()
    found["golu_on_cpu"] = native.description()
    return found


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What of the code differs between two environments, as `torch 2.14.0, now 2.15.0`; the machine does not count."""
    names = sorted((set(before) | set(now)) - _MACHINE)
    return [f"{n} {before.get(n, 'absent')}, now {now.get(n, 'absent')}" for n in names if before.get(n) != now.get(n)]


@cache
def versions(distribution: str) -> dict[str, str]:
    """Versions of a package and of all that it and golu-core ask for, extras that are installed among them."""
    found: dict[str, str] = {}
    for name in (distribution, "golu-core", *_required(distribution), *_required("golu-core")):
        try:
            found.setdefault(name, version(name))
        except PackageNotFoundError:
            continue
    return found


def _required(distribution: str) -> Iterator[str]:
    try:
        asked = requires(distribution) or []
    except PackageNotFoundError:
        return
    for requirement in asked:
        match = re.match(r"[A-Za-z0-9._-]+", requirement)
        if match:
            yield match.group().lower().replace("_", "-")


@cache
def _code_revision() -> dict[str, str]:
    """The git revision of this package's source and whether files of it are changed; nothing where there is none."""
    here = Path(__file__).resolve()
    if not _git(here.parent, "ls-files", "--error-unmatch", here.name):
        return {}  # installed, perhaps below somebody else's repository
    revision = _git(here.parent, "rev-parse", "HEAD")
    changed = _git(here.parent, "status", "--porcelain", "--untracked-files=no", ":/packages", ":/tools")
    return {"git_revision": revision, "git_dirty": str(bool(changed)).lower()} if revision else {}


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
