"""Trains a diffusion model: from a recipe to result.json, top to bottom."""

from __future__ import annotations

from functools import partial

import torch

from golu_core.training.activations import swapped_for
from golu_core.training.config import limited_steps
from golu_core.training.data import EpochOrder, train_loader
from golu_core.training.errors import RequestError, RunFailure
from golu_core.training.optim import build_optimizer
from golu_core.training.results import Result, SwappedActivations
from golu_core.training.run import Run
from golu_core.training.schedules import learning_rate
from golu_core.training.seeding import seed_global_generators

from .config import DiffusionConfig
from .data import DiffusionData, check_every_image, load_data
from .diffusion import Diffusion
from .evaluate import OUTPUTS, PRIMARY, UNIT, evaluate, squared_errors
from .fid import check_fid, frechet_distance
from .sample import Sampling, draw, save_grid
from .unet import UNet


def train(config: DiffusionConfig) -> None:
    """Trains a recipe, continues its run, or says that it is finished.

    Raises:
        RequestError: the request is wrong; nothing was written.
        RunFailure: training failed; the message names the last good checkpoint.
        Interrupted: a signal stopped it, and it is saved.
    """
    with Run(config, task="diffusion", unit=UNIT, primary=PRIMARY, outputs=OUTPUTS) as run:
        if run.already_finished():
            return

        plan = run.plan_batches(config.batch_size, config.max_device_batch)
        check_fid(config)
        diffusion = Diffusion(config.noise, run.device)
        model, swapped = build_model(config)
        try:
            with run.accelerator.main_process_first():  # one process writes the sample, the others find it
                data = load_data(config)
        except RequestError as error:
            if not config.dry_run or config.check_data:
                raise
            describe(run, None, model, swapped, str(error))
            return
        for difference in data.differences:
            run.warn(difference)
        if config.check_data:
            run.say(f"data: all {max(check_every_image(data, config.num_workers)):,} images can be decoded")
        if config.dry_run:
            describe(run, data, model, swapped)
            return

        order = EpochOrder(data.train.source.count, config.batch_size, config.seed, config.drop_last)
        optimizer = build_optimizer(model.to(run.device), config.optim, run.device)
        steps = total_steps(config, order.steps_per_epoch)
        inputs = {"data": data.fingerprint}
        prepared, _ = run.prepare(model, optimizer, total_steps=steps, inputs=inputs, average=config.average)
        batches = train_loader(data.train, order, plan, run.rank, config.num_workers)
        schedule = partial(
            learning_rate,
            config.schedule,
            config.optim.lr,
            steps_per_epoch=order.steps_per_epoch,
            epochs=config.epochs,
        )

        for epoch in run.epochs():
            prepared.train()
            for batch in run.batches(batches, epoch):
                loss = squared_errors(prepared, batch, diffusion, run.device).mean()
                run.step(loss, schedule, clip=config.clip)
            if not run.is_last_epoch:
                metrics = evaluate(run, run.evaluated_model, data, diffusion)
                draw_grid(run, diffusion, epoch + 1)
                run.report(metrics)

        metrics = evaluate(run, run.evaluated_model, data, diffusion)
        draw_grid(run, diffusion, run.position.epoch)
        run.report(metrics)
        result = run.finish(
            metrics, dataset=config.data.title, model_name="DDPM UNet", data=data.facts, swapped=swapped
        )
        if config.fid_images:
            add_frechet_distance(run, result, data, diffusion)


def build_model(config: DiffusionConfig) -> tuple[UNet, SwappedActivations]:
    """The UNet, its weights a function of the seed alone, and what became of its activations."""
    seed_global_generators(config.seed, "weights")
    model = UNet(config.model, config.own_activation)
    example = (torch.zeros(1, 3, config.model.factor, config.model.factor), torch.zeros(1, dtype=torch.int64))
    return model, swapped_for(model, config.own_activation, config.activation, example)


def add_frechet_distance(run: Run[DiffusionConfig], result: Result, data: DiffusionData, diffusion: Diffusion) -> None:
    """Draws images and adds their distance to the result, which is written already: a failure costs no run."""
    config = run.config
    sampling = Sampling("ddpm", None, config.seed, config.evaluation_batch)
    try:
        images = draw(run, run.evaluated_model, diffusion, config.fid_images, sampling)
        if run.is_main:
            distance = frechet_distance(images, data.test, config, run.device)
            run.amend(result, {"fid": distance, "fid_images": float(config.fid_images)})
            run.say(f"fid {distance:.6g}, of {config.fid_images} images")
    except Exception as error:  # torch-fidelity, its download, the disk, memory
        problem = str(error).strip().partition("\n")[0] or type(error).__name__
        raise RunFailure(
            f"the run in {run.folder} is finished, and its result is written; only the Frechet distance of "
            f"--fid-images could not be taken: {problem}"
        ) from error


def draw_grid(run: Run[DiffusionConfig], diffusion: Diffusion, epoch: int) -> None:
    """Draws images and saves them as `samples/epoch-001.png`, always from the same noise."""
    config = run.config
    if config.samples == 0:
        return
    sampler = "ddpm" if config.sample_steps is None else "ddim"
    sampling = Sampling(sampler, config.sample_steps, config.seed, config.evaluation_batch)
    images = draw(run, run.evaluated_model, diffusion, config.samples, sampling)
    if run.is_main:
        save_grid(run.folder / "samples" / f"epoch-{epoch:03d}.png", images)


def total_steps(config: DiffusionConfig, steps_per_epoch: int) -> int:
    """Optimizer steps of the whole run."""
    return limited_steps(config, config.epochs * steps_per_epoch)


def describe(
    run: Run[DiffusionConfig], data: DiffusionData | None, model: UNet, swapped: SwappedActivations, missing: str = ""
) -> None:
    """Prints what a run of the config would be."""
    config = run.config
    images = config.data.train_size if data is None else data.train.source.count
    per_epoch = max(1, images // config.batch_size)
    plan = run.plan_batches(config.batch_size, config.max_device_batch)
    state = f"missing: {missing}" if data is None else f"{images:,} training, {data.test.source.count:,} test images"
    run.say(f"recipe       {config.recipe}, activation {config.activation}, seed {config.seed}")
    run.say(f"run folder   {run.folder}")
    run.say(f"data         {state}")
    run.say(f"model        UNet, {sum(p.numel() for p in model.parameters()):,} parameters")
    run.say(f"activations  {swapped.swapped} {config.own_activation} swapped for {config.activation}")
    for line in swapped.lines():
        run.say(f"             {line}")
    run.say(
        f"steps        {total_steps(config, per_epoch):,} of {config.batch_size} images ({plan.processes} processes x "
        f"{plan.accumulation} accumulated x {plan.device_size}), {per_epoch:,} an epoch"
    )
