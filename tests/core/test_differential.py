"""Thousands of random calls of GoLU on each path that can compute it, against the paper's formula in float64."""

from __future__ import annotations

import pytest

from differential import EVERY_PATH, LAYOUTS, case_of, wrong_cases

CASES, MORE = 700, 10_000


@pytest.mark.parametrize("path", EVERY_PATH)
def test_random_calls(path, emulated):
    wrong = wrong_cases(path, range(CASES), emulated)
    assert not wrong, "\n".join([f"{len(wrong)} of {CASES} are wrong, such as", *wrong[:5]])


@pytest.mark.slow
@pytest.mark.parametrize("path", EVERY_PATH)
def test_many_more_random_calls(path, emulated):
    wrong = wrong_cases(path, range(CASES, CASES + MORE), emulated)
    assert not wrong, "\n".join([f"{len(wrong)} of {MORE} are wrong, such as", *wrong[:5]])


def test_the_cases_hold_every_layout_and_form():
    cases = [case_of(seed) for seed in range(CASES)]
    assert {case.layout for case in cases} == {case.gradient_layout for case in cases} == set(LAYOUTS)
    assert len(LAYOUTS) == 11 and {case.form for case in cases} == {"plain", "gated", "tensors"}
    assert {len(case.shape) for case in cases} == set(range(6)) and any(0 in case.shape for case in cases)
