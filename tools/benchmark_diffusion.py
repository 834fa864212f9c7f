"""golu-diffusion against a bare loop over the same UNet, and the time of its samplers."""

from __future__ import annotations

import statistics
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from golu_core.training.config.optim import build_optimizer
from golu_core.training.data.orders import EpochOrder
from golu_core.training.loop.run import Run
from golu_diffusion.config import DiffusionConfig
from golu_diffusion.data import load_data, scaled
from golu_diffusion.diffusion import Diffusion, in_fixed_batches, sampled
from golu_diffusion.evaluate import squared_errors
from golu_diffusion.model import build_model
from golu_diffusion.recipes import RECIPES
from golu_diffusion.task import TASK
from measuring import Row, interleaved, peak_resident_mib, seconds_of


def _config(folder: Path, compiled: bool) -> DiffusionConfig:
    """On a GPU the published network at 64 x 64 in bfloat16; on a CPU that of `ddpm-digits`."""
    recipe = RECIPES["ddpm-celeba" if torch.cuda.is_available() else "ddpm-digits"]
    return replace(
        recipe,
        activation="swish",
        data=replace(RECIPES["ddpm-digits"].data, size=recipe.data.size),
        data_dir=folder / "data",
        output_dir=folder / f"runs-{compiled}",
        mixed_precision="bf16" if torch.cuda.is_available() else "no",
        compile=compiled,
        log_every=10**9,
    )


def all_rows(compiled_too: bool) -> list[Row]:
    """Training, eager and on a GPU compiled too, and sampling."""
    rows = []
    for compiled in (False, True) if compiled_too and torch.cuda.is_available() else (False,):
        with tempfile.TemporaryDirectory() as name:
            config = _config(Path(name), compiled)
            loops = {"golu-diffusion": _our_loop(config), "bare loop": _bare_loop(config)}
            tasks: dict[str, Any] = {loop: partial(next, steps) for loop, steps in loops.items()}
            times = interleaved(tasks, 25, 1)
        speeds = {loop: config.batch_size / statistics.median(values) for loop, values in times.items()}
        for loop, speed in speeds.items():
            what = f"{loop}, {config.data.size} x {config.data.size}{', compiled' if compiled else ''}"
            row: Row = {"what": what, "images_per_second": speed, "of_the_bare_loop": speed / speeds["bare loop"]}
            rows.append(row)
    memory = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else peak_resident_mib()
    rows.append({"what": "peak memory of both loops", "peak_memory_mib": memory})
    return [*rows, *_sampling_rows()]


def _our_loop(config: DiffusionConfig) -> Iterator[None]:
    data = load_data(config)
    for number in range(data.train.source.count):  # as the bare loop has them, decoded before the first step
        data.train.image(number)
    with Run(config, TASK) as run:
        diffusion = Diffusion(config.noise, run.device)
        model = build_model(config)[0].to(run.device)
        optimizer = build_optimizer(model, config.optim, run.device)
        order = EpochOrder(data.train.source.count, config.batch_size, 0, drop_last=True)
        prepared = run.prepare(model, optimizer, data.train, order, inputs={"data": data.fingerprint})
        prepared.train()
        for _ in run.epochs():
            for micro_batch in run.micro_batches():
                run.backward(micro_batch, squared_errors(prepared, micro_batch.batch, diffusion, run.device).mean())
                if run.device.type == "cuda":
                    torch.cuda.synchronize()
                yield


def _bare_loop(config: DiffusionConfig) -> Iterator[None]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = load_data(config)
    images = torch.stack([data.train.image(n) for n in range(data.train.source.count)])
    alpha_bar = (1 - torch.linspace(1e-4, 0.02, 1000)).cumprod(0).to(device)
    model = build_model(config)[0].to(device).train()
    if config.compile:
        model.compile()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    autocast = torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()
    while True:
        for rows in torch.randperm(len(images)).split(config.batch_size):
            if len(rows) < config.batch_size:
                break
            x = scaled(images[rows], device)
            steps, noise = torch.randint(1000, (len(x),), device=device), torch.randn_like(x)
            kept = alpha_bar[steps][:, None, None, None]
            with autocast:
                loss = F.mse_loss(model(kept.sqrt() * x + (1 - kept).sqrt() * noise, steps), noise)
            loss.backward()
            if config.clip is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            optimizer.step()
            optimizer.zero_grad()
            if device.type == "cuda":
                torch.cuda.synchronize()
            yield


def _sampling_rows() -> list[Row]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = _config(Path(), compiled=False)
    model = build_model(config)[0].to(device).eval()
    process, shape = Diffusion(config.noise, device), (3, config.data.size, config.data.size)
    rows: list[Row] = []
    for sampler, steps in (("ddpm", None), ("ddim", 50)):
        network = in_fixed_batches(model)
        draws = sampled(process, network, range(16), shape, seed=0, sampler=sampler, steps=steps, device=device)
        seconds = seconds_of(partial(deque, draws, 1))
        rows.append({"what": f"16 samples, {sampler}-{steps or config.noise.steps}", "seconds": seconds})
    return rows
