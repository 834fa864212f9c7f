"""The metric of a network does not depend on how many processes evaluate it, nor on what its images stand beside."""

from __future__ import annotations

import json

import pytest

from detect_program import DETECT, shrink


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["deeplabv3-digits", "fasterrcnn-digits"])
def test_pictures_of_mixed_sizes_in_one_process_and_two(recipe, mixed_scenes, tmp_path):
    places = ["--data-dir", str(mixed_scenes)]
    assert DETECT.run("train", recipe, *shrink(recipe), *places, cwd=tmp_path).returncode == 0
    folder = f"runs/detect/{recipe}/golu/seed0"
    one, two = (DETECT.run("evaluate", folder, cwd=tmp_path, processes=n) for n in (1, 2))
    assert one.returncode == 0, one.stderr
    assert two.returncode == 0, two.stderr
    assert one.stdout == two.stdout
    assert "to the last digit" in one.stderr
    metrics = json.loads((tmp_path / folder / "result.json").read_text())["metrics"]
    assert {line.split()[0] for line in one.stdout.splitlines()} == set(metrics)
