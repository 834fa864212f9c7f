"""The machine code of the CUDA kernels, without a GPU: a change that would leave the memory bound is seen here."""

from __future__ import annotations

import pytest

import machine_code
from golu_core.activation.compute import kernel

pytest.importorskip("cuda.bindings.nvrtc", reason="needs cuda-bindings, from the dependency group test")


@pytest.fixture(scope="module")
def rows():
    try:
        return [row for architecture in machine_code.CARDS for row in machine_code.rows_of(architecture)]
    except RuntimeError as error:
        pytest.skip(f"needs NVRTC, which torch's CUDA builds bring: {error}")


def test_nothing_is_spilled_and_every_kernel_is_counted(rows):
    assert len(rows) == 2 * len(kernel.KERNEL_DTYPES) * len(machine_code.CARDS)
    assert all(row["spilled_bytes"] == 0 and row["instructions_an_element"] > 8 for row in rows)


@pytest.mark.parametrize("architecture", machine_code.CARDS)
def test_kernels_of_learned_parameters_spill_nothing(architecture, rows):
    _, log = machine_code._compiled(architecture)
    names = {f"golu_learned_{way}_{name}" for way in ("forward", "backward") for name in kernel.KERNEL_DTYPES.values()}
    assert all(machine_code._resources(log, name)[1] == 0 for name in names)


def test_memory_is_the_bound_but_for_float64(rows):
    for row in rows:
        if "float64" not in row["kernel"]:
            assert max(row["share_of_issue"], row["share_of_special"]) < 0.9, row
            assert row["special_an_element"] == 2, row


@pytest.mark.parametrize(("kernel_of", "most"), [("forward bfloat16", 15), ("backward bfloat16", 22)])
def test_instructions_an_element_on_a_b200(kernel_of, most, rows):
    (row,) = (row for row in rows if row["card"] == "B200" and row["kernel"] == kernel_of)
    assert row["instructions_an_element"] <= most
