"""Train an image classifier: from a recipe to result.json, top to bottom."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import nn

from golu_core.training import EpochOrder, Processes, Run, build_optimizer, load_checked
from golu_core.training.data import BatchPlan
from golu_core.training.finetuning import head_of_start, inputs_of_start, measure_start, train_mode
from golu_core.training.storage import write_json

from .config import VisionConfig
from .data import ImageBatch, ImageData, check_every_image, load_data
from .evaluate import Mistake, average_metrics, evaluate, save_mistakes
from .initial_weights import CLASSES_FILE, start_of_run
from .mixing import check_mixing, mix_batch
from .model import build_model, check_model_name, check_network
from .opening import opening, published_sizes
from .task import TASK
from .transforms import normalized

_WORST = "samples/worst.png"


def train(config: VisionConfig) -> None:
    """Train a recipe, resume its run, or report that it is finished.

    Raises:
        RequestError: The request is invalid; nothing was written.
        RunFailure: Training failed; the message names the last good checkpoint.
        Interrupted: A signal stopped the run, which is saved.
    """
    with Run(config, TASK) as run:
        if run.report_if_finished():
            return

        check_request(config, run.plan)
        stand_in = None if config.data.is_own else partial(published_sizes, config)
        data = run.load(partial(checked_data, config, run.processes), stand_in)
        model, swapped = build_model(config, len(data.classes))
        check_network(model, config, run.plan.device_size, len(data.classes))
        start = start_of_run(config, model, data.classes, run.processes)
        model.to(run.device).to(memory_format=torch.channels_last)
        optimizer = build_optimizer(model, config.optim, run.device, head_of_start(start))
        order = epoch_order(config, len(data.train))
        inputs = {"data": data.fingerprint} | inputs_of_start(start)
        opened = opening(config, data, model, swapped, order, start)
        model = run.prepare(
            model,
            optimizer,
            data.train,
            order,
            inputs=inputs,
            opening=opened,
            average=config.average,
            batch_norm=config.batch_norm,
        )
        measure_start(
            run, start, partial(other_model, config, data), lambda network: evaluate(run.evaluation, network, data)[0]
        )

        for epoch in run.epochs():
            train_mode(model, config.freeze)
            for micro_batch in run.micro_batches():
                loss = training_loss(model, micro_batch.batch, config, len(data.classes), epoch, run.device)
                run.backward(micro_batch, loss)
            metrics, worst = evaluate(run.evaluation, run.evaluated_model, data)
            metrics |= average_metrics(run.evaluation, run.kept_average, data)
            run.report(metrics)

        if run.is_main:
            write_json(run.folder / CLASSES_FILE, {"classes": list(data.classes)})
        run.finish(
            metrics,
            dataset=config.data.title,
            model_name=config.model.name,
            data=data.facts,
            swapped=swapped,
            files=(CLASSES_FILE,),
            extras={_WORST: lambda: _save_worst(run, worst, data)},
        )


def _save_worst(run: Run[VisionConfig], worst: list[Mistake], data: ImageData) -> None:
    """Draw the test images with the least probable right class."""
    if run.is_main:
        save_mistakes(run.folder / _WORST, worst, data.test, data.classes, run.config.data)


def other_model(config: VisionConfig, data: ImageData, activation: str) -> nn.Module:
    """Build the recipe's network with a different activation, on the CPU."""
    model, _ = build_model(replace(config, activation=activation), len(data.classes))
    return model.to(memory_format=torch.channels_last)


def check_request(config: VisionConfig, plan: BatchPlan) -> None:
    """Raise RequestError for problems that can be found before any sample is written or model is built."""
    if config.mix is not None:
        check_mixing(config.mix, plan)
    check_model_name(config.model)
    if not config.data.is_own:
        epoch_order(config, config.data.train_images)


def checked_data(config: VisionConfig, processes: Processes) -> ImageData:
    """Load both splits, with every image if the config asks for it; raise RequestError if they are malformed."""

    def read_all(data: ImageData) -> str:
        read = max(check_every_image(data, config.evaluation_batch, config.num_workers))
        return f"all {read:,} images can be decoded"

    return load_checked(config, processes, lambda: load_data(config), read_all)


def training_loss(
    model: nn.Module, batch: ImageBatch, config: VisionConfig, classes: int, epoch: int, device: torch.device
) -> torch.Tensor:
    """Return the mean cross-entropy of N images, with mixing and label smoothing as in the recipe: a scalar."""
    images = normalized(batch.images, config.data, device)
    targets = batch.labels.to(device, non_blocking=True)
    if config.mix is not None:
        one_hot = nn.functional.one_hot(targets, classes).float()
        images, targets = mix_batch(images, one_hot, batch.positions, config.mix, config.seed, epoch)
    return nn.functional.cross_entropy(model(images), targets, label_smoothing=config.label_smoothing)


def epoch_order(config: VisionConfig, images: int) -> EpochOrder:
    """Return the order of the training images; raise RequestError if there are too few for one batch."""
    return EpochOrder(images, config.batch_size, config.seed, config.drop_last, config.repeats)
