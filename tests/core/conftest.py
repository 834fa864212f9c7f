"""Fixtures of the tests of golu-core."""

from __future__ import annotations

import pytest

from cpu_paths import kernels_of, usable_levels
from emulation import emulation
from golu_core.activation.compute import native


@pytest.fixture(params=usable_levels())
def level(request, monkeypatch):
    """Each test with the kernels of each instruction set of this processor."""
    kernels = kernels_of(request.param)
    monkeypatch.setattr(native, "kernels", lambda: kernels)
    return request.param


@pytest.fixture(scope="session")
def emulated(tmp_path_factory):
    """The CUDA kernels, compiled for the CPU."""
    return emulation(tmp_path_factory.mktemp("kernel"))
