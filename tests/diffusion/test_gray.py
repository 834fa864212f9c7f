"""Images of one channel: what Pillow's `L` is, from training to samples."""

from __future__ import annotations

import json

import numpy
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision.transforms.v2.functional import pil_to_tensor

from command_line import runner_in_this_process
from diffusion_program import FOLDER, TINY
from golu_diffusion.cli import COMMAND_LINE
from golu_diffusion.data import gray


@pytest.fixture
def run_here(monkeypatch, capfd):
    return runner_in_this_process(COMMAND_LINE, monkeypatch, capfd)


def test_gray_is_pillows():
    every = torch.arange(256).repeat(3, 1, 1)  # gray already
    assert torch.equal(gray(every.to(torch.uint8)), every[:1].to(torch.uint8))
    colors = torch.randint(256, (3, 300, 400), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pillows = Image.fromarray(colors.permute(1, 2, 0).numpy()).convert("L")
    assert torch.equal(gray(colors), pil_to_tensor(pillows))


def test_a_gray_set_is_trained_on_and_drawn_in_gray(few_images, tmp_path, run_here):
    flags = ["--data.images", str(few_images), "--data.channels", "1", *TINY]
    done = run_here("train", "ddpm-digits", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "no color" not in done.stderr
    run = tmp_path / FOLDER
    weights = load_file(run / "model.safetensors")
    assert weights["head.weight"].shape[1] == 1 and weights["tail.2.weight"].shape[0] == 1
    assert Image.open(run / "samples" / "epoch-002.png").mode == "L"
    done = run_here("evaluate", str(FOLDER), cwd=tmp_path)
    printed = dict(line.split() for line in done.stdout.splitlines())
    assert float(printed["loss"]) == pytest.approx(
        json.loads((run / "result.json").read_text())["metrics"]["loss"], 1e-5
    )
    done = run_here("sample", str(FOLDER), "--count", "3", "--out", "drawn", "--gif", "film.gif", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {Image.open(path).mode for path in (*(tmp_path / "drawn").glob("*.png"), tmp_path / "samples.png")} == {"L"}
    first, last = sorted(few_images.iterdir())[:2]
    done = run_here("interpolate", str(FOLDER), str(first), str(last), "--timestep", "5", "--points", "3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    row = numpy.asarray(Image.open(tmp_path / "interpolation.png"))
    assert row.shape == (68, 5 * 66 + 2)


@pytest.mark.parametrize("colored", [False, True])
def test_a_set_without_color_is_said(colored, few_images, tmp_path, run_here):
    for number, path in enumerate(sorted(few_images.iterdir())[:12]):
        image = Image.open(path).convert("RGB")
        if colored and number == 4:
            image.putpixel((0, 0), (200, 100, 0))
        image.save(tmp_path / f"{number:02d}.png")
    done = run_here(
        "train", "ddpm-digits", "--data.images", str(tmp_path), "--batch-size", "4", "--dry-run", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert ("--data.channels 1 trains and draws in gray" in done.stderr) != colored
