"""Train a diffusion model: from a recipe to result.json, top to bottom."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from golu_core.training import (
    EpochOrder,
    Processes,
    Run,
    build_optimizer,
    load_checked,
)
from golu_core.training.finetuning import (
    head_of_start,
    inputs_of_start,
    measure_start,
    train_mode,
)
from golu_core.training.runs import RESULT_FILE, amend_result

from .config import DiffusionConfig
from .data import DiffusionData, check_every_image, load_data
from .device_noise import DeviceNoise
from .diffusion import Diffusion
from .drawing import Sampling, draw
from .evaluate import evaluate, squared_errors
from .fid import check_fid, distance_of_drawn
from .initial_weights import start_of_run
from .model import UNet, build_model
from .opening import opening, published_sizes
from .sample import save_grid
from .task import TASK

_GRIDS, _DISTANCE = "samples/epoch-*.png", "the Frechet distance of --fid-images"


def train(config: DiffusionConfig) -> None:
    """Train a recipe, resume its run, or report that it is finished.

    Raises:
        RequestError: The request is invalid; nothing was written.
        RunFailure: Training failed; the message names the last good checkpoint.
        Interrupted: A signal stopped the run, which is saved.
    """
    with Run(config, TASK) as run:
        if run.report_if_finished():
            return

        check_fid(config)
        diffusion = Diffusion(config.noise, run.device)
        model, swapped = build_model(config)
        stand_in = None if config.data.is_own else partial(published_sizes, config)
        data = run.load(partial(checked_data, config, run.processes), stand_in)
        start = start_of_run(config, model, run.processes)
        optimizer = build_optimizer(model.to(run.device), config.optim, run.device, head_of_start(start))
        order = epoch_order(config, data.facts["train"])
        inputs = {"data": data.fingerprint} | inputs_of_start(start)
        prepared = run.prepare(
            model,
            optimizer,
            data.train,
            order,
            inputs=inputs,
            opening=opening(config, data, model, swapped, order, start),
            average=config.average,
        )
        measure_start(
            run, start, partial(other_model, config), lambda network: evaluate(run.evaluation, network, data, diffusion)
        )

        noise = DeviceNoise(config, run.device) if config.device_noise else None
        for epoch in run.epochs():
            train_mode(prepared, config.freeze)
            for micro_batch in run.micro_batches():
                batch = micro_batch.batch if noise is None else noise.added_to(micro_batch.batch, epoch)
                run.backward(micro_batch, squared_errors(prepared, batch, diffusion, run.device).mean())
            metrics = evaluate(run.evaluation, run.evaluated_model, data, diffusion)
            run.report(metrics)
            run.extra(_GRIDS, partial(_draw_grid, run, diffusion, epoch + 1))

        distance = {_DISTANCE: partial(_add_frechet_distance, run, data, diffusion)} if config.fid_images else {}
        run.finish(
            metrics,
            dataset=config.data.title,
            model_name="DDPM UNet",
            data=data.facts,
            swapped=swapped,
            extras=distance,
        )


def other_model(config: DiffusionConfig, activation: str) -> UNet:
    """Build the recipe's network with a different activation, on the CPU."""
    return build_model(replace(config, activation=activation))[0]


def checked_data(config: DiffusionConfig, processes: Processes) -> DiffusionData:
    """Load both splits, with every image if the config asks for it; raise RequestError if they are malformed."""

    def read_all(data: DiffusionData) -> str:
        return f"all {max(check_every_image(data, config.num_workers)):,} images can be decoded"

    return load_checked(config, processes, lambda: load_data(config), read_all)


def epoch_order(config: DiffusionConfig, images: int) -> EpochOrder:
    """Return the order of the training images; raise RequestError if there are too few for one batch."""
    return EpochOrder(images, config.batch_size, config.seed, config.drop_last)


def _draw_grid(run: Run[DiffusionConfig], diffusion: Diffusion, epoch: int) -> None:
    """Sample images and save them as `samples/epoch-001.png`, always from the same noise."""
    config = run.config
    if config.samples == 0:
        return
    sampler = "ddpm" if config.sample_steps is None else "ddim"
    sampling = Sampling(sampler, config.sample_steps, config.seed, config.evaluation_batch, exact=True)
    images = draw(run.processes, run.evaluated_model, diffusion, config.data.shape, config.samples, sampling)
    if run.is_main:
        save_grid(run.folder / "samples" / f"epoch-{epoch:03d}.png", images)


def _add_frechet_distance(run: Run[DiffusionConfig], data: DiffusionData, diffusion: Diffusion) -> None:
    """Sample images and add their FID to the result, which is already written."""
    distance = distance_of_drawn(run.processes, run.evaluated_model, diffusion, data, run.config)
    if distance is not None:
        images = float(run.config.fid_images)
        amend_result(run.folder / RESULT_FILE, {"fid": distance, "fid_images": images})
