"""Trains a segmenter or detector: from a recipe to result.json, top to bottom."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from golu_core.training.config import limited_steps
from golu_core.training.data import train_loader
from golu_core.training.errors import RequestError
from golu_core.training.fingerprint import tensors_fingerprint
from golu_core.training.optim import build_optimizer
from golu_core.training.ownership import write_json
from golu_core.training.results import SwappedActivations
from golu_core.training.run import Run
from golu_core.training.schedules import learning_rate

from .coco import IGNORED
from .config import DeepLabV3, DetectConfig
from .data import DetectData, SceneBatch, check_every_image, load_data, training_order
from .evaluate import OUTPUTS, UNIT, evaluate, normalized, padded_targets, primary_metric, unit_range
from .models import backbone_weights, build_model
from .predict import CLASSES_FILE, save_predictions


def train(config: DetectConfig) -> None:
    """Trains a recipe, continues its run, or says that it is finished.

    Raises:
        RequestError: the request is wrong; nothing was written.
        RunFailure: training failed; the message names the last good checkpoint.
        Interrupted: a signal stopped it, and it is saved.
    """
    with Run(config, task="detect", unit=UNIT, primary=primary_metric(config), outputs=OUTPUTS) as run:
        if run.already_finished():
            return

        plan = run.plan_batches(config.batch_size, config.max_device_batch)
        backbone = backbone_weights(config)
        try:
            with run.accelerator.main_process_first():  # one process writes the sample, the others find it
                data = load_data(config)
        except RequestError as error:
            if not config.dry_run or config.check_data:
                raise
            describe(run, None, *build_model(config, config.data.expected_classes, backbone), str(error))
            return
        for remark in data.remarks:
            run.warn(remark)
        if config.check_data:
            run.say(f"data: all {check_every_image(data, config.num_workers):,} images and their objects can be read")

        order = training_order(config, data)
        model, swapped = build_model(config, data.classes, backbone)
        if config.dry_run:
            describe(run, data, model, swapped)
            return
        inputs = {"data": data.fingerprint}
        if backbone is not None:
            inputs["backbone"] = tensors_fingerprint(backbone)
        model = run.with_common_batch_norm(model)
        optimizer = build_optimizer(model.to(run.device), config.optim, run.device)
        model, _ = run.prepare(model, optimizer, total_steps=total_steps(config, order.steps_per_epoch), inputs=inputs)
        batches = train_loader(data.train, order, plan, run.rank, config.num_workers)
        schedule = partial(
            learning_rate,
            config.schedule,
            config.optim.lr,
            steps_per_epoch=order.steps_per_epoch,
            epochs=config.epochs,
        )

        for epoch in run.epochs():
            model.train()
            for batch in run.batches(batches, epoch):
                run.step(training_loss(model, batch, config, run.device), schedule, clip=config.clip)
            if not run.is_last_epoch:
                metrics, _ = evaluate(run, run.evaluated_model, data)
                run.report(metrics)

        metrics, found = evaluate(run, run.evaluated_model, data)
        run.report(metrics)
        if run.is_main:
            write_json(run.folder / CLASSES_FILE, {"count": data.classes, "names": dict(data.names)})
            if not config.segments:
                write_json(run.folder / "detections.json", found)
            save_predictions(run.folder / "samples" / "predictions.png", run.evaluated_model, data, run.device)
        run.finish(
            metrics,
            dataset=config.data.title,
            model_name=f"{config.model.kind} {config.model.backbone}",
            data=data.facts,
            swapped=swapped,
            files=(CLASSES_FILE,),
        )


def training_loss(model: nn.Module, batch: SceneBatch, config: DetectConfig, device: torch.device) -> Tensor:
    """Sum of a detector's losses, or cross-entropy of the pixels with the auxiliary head's share."""
    if isinstance(config.model, DeepLabV3):
        outputs = model(normalized(batch.images, device))
        targets = padded_targets(batch, device)
        losses = {name: F.cross_entropy(logits, targets, ignore_index=IGNORED) for name, logits in outputs.items()}
        aux = losses.get("aux")
        return losses["out"] if aux is None else losses["out"] + config.model.aux_weight * aux
    instances = [{name: value.to(device, non_blocking=True) for name, value in t.items()} for t in batch.targets]
    parts = model([unit_range(image, device) for image in batch.images], instances)
    return torch.stack(list(parts.values())).sum()


def total_steps(config: DetectConfig, steps_per_epoch: int) -> int:
    """Optimizer steps of the whole run."""
    return limited_steps(config, config.epochs * steps_per_epoch)


def describe(
    run: Run[DetectConfig], data: DetectData | None, model: nn.Module, swapped: SwappedActivations, missing: str = ""
) -> None:
    """Prints what a run of the config would be."""
    config = run.config
    images = config.data.train_size if data is None else len(data.train)
    per_epoch = max(1, images // config.batch_size)
    plan = run.plan_batches(config.batch_size, config.max_device_batch)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    parameters = sum(p.numel() for p in model.parameters())
    state = f"missing: {missing}"
    if data is not None:
        state = (
            f"{len(data.train):,} training and {len(data.test):,} test images, {data.classes} classes with the "
            f"background; {data.facts['left_out']:,} training images without objects left out"
        )
    run.say(f"recipe       {config.recipe}, activation {config.activation}, seed {config.seed}")
    run.say(f"run folder   {run.folder}")
    run.say(f"data         {state}")
    run.say(f"model        {config.model.kind}, {parameters:,} parameters, {trainable:,} of them are trained")
    run.say(f"backbone     {config.model.backbone}, weights: {config.backbone or 'none, trained from scratch'}")
    run.say(f"activations  {swapped.swapped} {config.model.own_activation} swapped for {config.activation}")
    for line in swapped.lines():
        run.say(f"             {line}")
    run.say(
        f"steps        {total_steps(config, per_epoch):,} of {config.batch_size} images ({plan.processes} processes x "
        f"{plan.accumulation} accumulated x {plan.device_size}), {per_epoch:,} an epoch"
    )
