"""Trains an image classifier: from a recipe to result.json, top to bottom."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from golu_core.training.config import limited_steps
from golu_core.training.data import EpochOrder, evaluation_loader, train_loader
from golu_core.training.errors import RequestError
from golu_core.training.optim import build_optimizer
from golu_core.training.results import SwappedActivations
from golu_core.training.run import Run
from golu_core.training.schedules import learning_rate

from .config import VisionConfig
from .data import ImageBatch, ImageData, check_every_image, load_data
from .evaluate import OUTPUTS, PRIMARY, UNIT, evaluate, save_mistakes
from .mixing import check_mixing, mix_batch
from .models import build_model, check_model_name
from .transforms import normalized


def train(config: VisionConfig) -> None:
    """Trains a recipe, continues its run, or says that it is finished.

    Raises:
        RequestError: the request is wrong; nothing was written.
        RunFailure: training failed; the message names the last good checkpoint.
        Interrupted: a signal stopped it, and it is saved.
    """
    with Run(config, task="vision", unit=UNIT, primary=PRIMARY, outputs=OUTPUTS) as run:
        if run.already_finished():
            return

        plan = run.plan_batches(config.batch_size, config.max_device_batch)
        if config.mix is not None:
            check_mixing(config.mix, plan)
        check_model_name(config.model)
        if not config.data.is_own:
            epoch_order(config, config.data.train_images)  # refuses an impossible batch before a sample is written
        try:
            with run.accelerator.main_process_first():  # one process writes the sample, the others find it
                data = load_data(config)
        except RequestError as error:
            if not config.dry_run or config.check_data:
                raise
            describe(run, None, *build_model(config, config.data.classes), str(error))
            return
        for difference in data.differences:
            run.warn(difference)
        if config.check_data:
            read = max(check_every_image(data, config.evaluation_batch, config.num_workers))
            run.say(f"data: all {read:,} images can be decoded")

        model, swapped = build_model(config, len(data.classes))
        if config.dry_run:
            describe(run, data, model, swapped)
            return
        model = run.with_common_batch_norm(model)
        model.to(run.device).to(memory_format=torch.channels_last)
        optimizer = build_optimizer(model, config.optim, run.device)

        order = epoch_order(config, len(data.train))
        steps = total_steps(config, order)
        model, _ = run.prepare(
            model, optimizer, total_steps=steps, inputs={"data": data.fingerprint}, average=config.average
        )
        train_batches = train_loader(data.train, order, plan, run.rank, config.num_workers)
        test_batches = evaluation_loader(
            data.test, config.evaluation_batch, run.world_size, run.rank, config.num_workers
        )
        schedule = partial(
            learning_rate,
            config.schedule,
            config.optim.lr,
            steps_per_epoch=order.steps_per_epoch,
            epochs=config.epochs,
        )

        for epoch in run.epochs():
            model.train()
            for batch in run.batches(train_batches, epoch):
                loss = training_loss(model, batch, config, len(data.classes), epoch, run.device)
                run.step(loss, schedule, clip=config.clip)
            if not run.is_last_epoch:
                metrics, _ = evaluate(run, run.evaluated_model, test_batches, config.data)
                run.report(metrics)

        metrics, worst = evaluate(run, run.evaluated_model, test_batches, config.data)
        run.report(metrics)
        if run.is_main:
            save_mistakes(run.folder / "samples" / "worst.png", worst, data.test, data.classes, config.data)
        run.finish(metrics, dataset=config.data.title, model_name=config.model.name, data=data.facts, swapped=swapped)


def training_loss(
    model: nn.Module, batch: ImageBatch, config: VisionConfig, classes: int, epoch: int, device: torch.device
) -> torch.Tensor:
    """Mean cross-entropy of a batch, with the recipe's mixing and label smoothing."""
    images = normalized(batch.images, config.data, device)
    targets = batch.labels.to(device, non_blocking=True)
    if config.mix is not None:
        one_hot = nn.functional.one_hot(targets, classes).float()
        images, targets = mix_batch(images, one_hot, batch.positions, config.mix, config.seed, epoch)
    return nn.functional.cross_entropy(model(images), targets, label_smoothing=config.label_smoothing)


def epoch_order(config: VisionConfig, images: int) -> EpochOrder:
    """The order of the training images; RequestError if they do not fill one batch."""
    return EpochOrder(images, config.batch_size, config.seed, config.drop_last, config.repeats)


def total_steps(config: VisionConfig, order: EpochOrder) -> int:
    """Optimizer steps of the whole run."""
    return limited_steps(config, config.epochs * order.steps_per_epoch)


def describe(
    run: Run[VisionConfig], data: ImageData | None, model: nn.Module, swapped: SwappedActivations, missing: str = ""
) -> None:
    """Prints what a run of the config would be."""
    config = run.config
    images = config.data.train_images if data is None else len(data.train)
    order = epoch_order(config, images)
    plan = run.plan_batches(config.batch_size, config.max_device_batch)
    parameters = sum(p.numel() for p in model.parameters())
    state = f"missing: {missing}" if data is None else f"{images:,} training and {len(data.test):,} test images"
    run.say(f"recipe       {config.recipe}, activation {config.activation}, seed {config.seed}")
    run.say(f"run folder   {run.folder}")
    run.say(f"data         {state}")
    run.say(f"model        {config.model.name}, {parameters:,} parameters")
    run.say(f"activations  {swapped.swapped} {config.model.own_activation} swapped for {config.activation}")
    for line in swapped.lines():
        run.say(f"             {line}")
    run.say(
        f"steps        {total_steps(config, order):,} of {config.batch_size} images "
        f"({plan.processes} processes x {plan.accumulation} accumulated x {plan.device_size}), "
        f"{order.steps_per_epoch:,} an epoch"
    )
