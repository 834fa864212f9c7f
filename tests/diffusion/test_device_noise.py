"""`--device-noise`: one generator for a whole batch, the same numbers however the batch is split."""

from __future__ import annotations

import json

import pytest
import torch

from command_line import runner_in_this_process
from diffusion_program import DIFFUSION, FOLDER, TINY
from golu_core.training.data.orders import SampleKey
from golu_core.training.data.seeding import Purpose, derive_seed
from golu_diffusion.cli import COMMAND_LINE
from golu_diffusion.config import Data, DiffusionConfig
from golu_diffusion.data import NoisyBatch, NoisyImages
from golu_diffusion.device_noise import DeviceNoise

CONFIG = DiffusionConfig(recipe="ddpm-digits", seed=3, batch_size=12, data=Data(size=8, channels=1), device_noise=True)
CPU = torch.device("cpu")


def batch_at(*positions: int) -> NoisyBatch:
    count = len(positions)
    images, steps = torch.zeros(count, 1, 8, 8, dtype=torch.uint8), torch.zeros(count, dtype=torch.int64)
    return NoisyBatch(images, steps, torch.empty(0), torch.tensor(positions))


def test_each_batch_has_its_own_seed():
    noise = DeviceNoise(CONFIG, CPU)
    for epoch, number in ((0, 0), (0, 1), (2, 1)):
        found = noise.added_to(batch_at(*range(12 * number, 12 * number + 12)), epoch).noise
        random = torch.Generator().manual_seed(derive_seed(3, Purpose.BATCH_NOISE, epoch, number))
        assert torch.equal(found, torch.randn(12, 1, 8, 8, generator=random))


@pytest.mark.parametrize("parts", [1, 2, 3, 6, 12])
def test_a_share_is_that_of_the_whole_batch(parts):
    """Each of several processes, or pieces of one, asks for its own images alone."""
    whole = DeviceNoise(CONFIG, CPU).added_to(batch_at(*range(24, 36)), 1).noise
    share = 12 // parts
    for part in range(parts):
        positions = range(24 + part * share, 24 + (part + 1) * share)
        found = DeviceNoise(CONFIG, CPU).added_to(batch_at(*positions), 1).noise
        assert torch.equal(found, whole[part * share : (part + 1) * share])


def test_the_loader_draws_none_of_it():
    class Source:
        count = 4

    for noisy in (True, False):
        images = NoisyImages(Source(), CONFIG.data, 20, 3, training=True, noisy=noisy)
        images._decoded = {number: torch.full((1, 8, 8), number, dtype=torch.uint8) for number in range(4)}
        batch = images.__getitems__([SampleKey(epoch=0, position=n, sample=n) for n in range(4)])
        assert batch.noise.shape == ((4, 1, 8, 8) if noisy else (0,))


def test_losses_do_not_depend_on_pieces(few_images, tmp_path, monkeypatch, capfd):
    run = runner_in_this_process(COMMAND_LINE, monkeypatch, capfd)
    losses = {}
    # dropout is seeded for each piece
    for name, flags in {
        "whole": ["--device-noise"],
        "pieces": ["--device-noise", "--micro-batch-size", "4"],
        "images": [],
    }.items():
        (tmp_path / name).mkdir()
        data = ["--data.images", str(few_images), "--model.dropout", "0"]
        done = run("train", "ddpm-digits", *TINY, *data, *flags, cwd=tmp_path / name)
        assert done.returncode == 0, done.stderr
        lines = (tmp_path / name / FOLDER / "metrics.jsonl").read_text().splitlines()
        losses[name] = [line["loss"] for line in map(json.loads, lines)]
    assert losses["pieces"][0] == pytest.approx(losses["whole"][0], rel=1e-6)
    assert losses["pieces"] == pytest.approx(losses["whole"], rel=1e-3)  # rounding grows from step to step
    assert losses["images"][0] != pytest.approx(losses["whole"][0], rel=1e-3)


@pytest.mark.slow
def test_two_processes_draw_alike(few_images, tmp_path):
    losses = []
    for processes in (1, 2):
        cwd = tmp_path / str(processes)
        cwd.mkdir()
        flags = [*TINY, "--data.images", str(few_images), "--model.dropout", "0", "--device-noise"]
        done = DIFFUSION.run("train", "ddpm-digits", *flags, cwd=cwd, processes=processes)
        assert done.returncode == 0, done.stderr
        lines = (cwd / FOLDER / "metrics.jsonl").read_text().splitlines()
        losses.append([line["loss"] for line in map(json.loads, lines)])
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-6)
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
