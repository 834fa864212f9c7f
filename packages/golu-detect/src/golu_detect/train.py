"""Train a segmenter or detector: from a recipe to result.json, top to bottom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from golu_core.training import Processes, RequestError, Run, build_optimizer, load_checked, tensors_fingerprint
from golu_core.training.data import BatchPlan
from golu_core.training.finetuning import head_of_start, inputs_of_start, measure_start, train_mode
from golu_core.training.storage import write_json

from .coco import IGNORED
from .config import DeepLabV3, DetectConfig
from .data import DetectData, check_every_image, load_data
from .evaluate import Detection, evaluate, normalized, padded_targets, unit_range
from .initial_weights import start_of_run
from .model import backbone_weights, build_model
from .opening import opening, published_sizes
from .orders import training_order
from .predict import CLASSES_FILE, save_predictions
from .scenes import SceneBatch
from .task import TASK

_DETECTIONS, _PICTURE = "detections.json", "samples/predictions.png"


def train(config: DetectConfig) -> None:
    """Train a recipe, resume its run, or report that it is finished.

    Raises:
        RequestError: The request is invalid; nothing was written.
        RunFailure: Training failed; the message names the last good checkpoint.
        Interrupted: A signal stopped the run, which is saved.
    """
    with Run(config, TASK) as run:
        if run.report_if_finished():
            return

        check_request(config, run.processes, run.plan)
        backbone = backbone_weights(config)
        stand_in = None if config.data.is_own else partial(published_sizes, config)
        data = run.load(partial(checked_data, config, run.processes), stand_in)
        order = training_order(config, data.train)
        model, swapped = build_model(config, data.classes, backbone)
        start = start_of_run(config, model, data, run.processes)
        inputs = {"data": data.fingerprint} | inputs_of_start(start)
        if backbone is not None:
            inputs["backbone"] = tensors_fingerprint(backbone)
        optimizer = build_optimizer(model.to(run.device), config.optim, run.device, head_of_start(start))
        opened = opening(config, data, model, swapped, order, start)
        model = run.prepare(
            model, optimizer, data.train, order, inputs=inputs, opening=opened, batch_norm=config.batch_norm
        )
        measure_start(
            run, start, partial(other_model, config, data), lambda network: evaluate(run.evaluation, network, data)[0]
        )

        for _ in run.epochs():
            train_mode(model, config.freeze)
            for micro_batch in run.micro_batches():
                run.backward(micro_batch, training_loss(model, micro_batch.batch, config, run.device))
            metrics, found = evaluate(run.evaluation, run.evaluated_model, data)
            run.report(metrics)

        if run.is_main:
            write_json(run.folder / CLASSES_FILE, {"count": data.classes, "names": dict(data.names)})
        run.finish(
            metrics,
            dataset=config.data.title,
            model_name=f"{config.model.kind} {config.model.backbone}",
            data=data.facts,
            swapped=swapped,
            files=(CLASSES_FILE,),
            extras=extras(run, data, found),
        )


def other_model(config: DetectConfig, data: DetectData, activation: str) -> nn.Module:
    """Build the recipe's network with a different activation, on the CPU."""
    return build_model(replace(config, activation=activation, backbone=None), data.classes)[0]


def check_request(config: DetectConfig, processes: Processes, plan: BatchPlan) -> None:
    """Raise RequestError if DeepLabV3 would process single images: its batch norm of pooled features needs two."""
    common = processes.count > 1 and processes.device.type == "cuda" and config.batch_norm == "synchronized"
    if config.segments and plan.device_size == 1 and not common:
        raise RequestError(
            "DeepLabV3 normalizes over the images of a micro-batch, and one image is too few: "
            "use a larger --batch-size or --micro-batch-size"
        )


def checked_data(config: DetectConfig, processes: Processes) -> DetectData:
    """Load both splits, with every image if the config asks for it; raise RequestError if one is malformed."""

    def read_all(data: DetectData) -> str:
        return f"all {check_every_image(data, config.num_workers):,} images and their objects can be read"

    return load_checked(config, processes, lambda: load_data(config), read_all)


def training_loss(model: nn.Module, batch: SceneBatch, config: DetectConfig, device: torch.device) -> Tensor:
    """Return a detector's summed losses, or a segmenter's cross-entropy with weighted auxiliary loss: a scalar."""
    if isinstance(config.model, DeepLabV3):
        outputs = model(normalized(batch.images, device))
        targets = padded_targets(batch, device)
        losses = {name: F.cross_entropy(logits, targets, ignore_index=IGNORED) for name, logits in outputs.items()}
        aux = losses.get("aux")
        return losses["out"] if aux is None else losses["out"] + config.model.aux_weight * aux
    instances = [{name: value.to(device, non_blocking=True) for name, value in t.items()} for t in batch.targets]
    parts = model([unit_range(image, device) for image in batch.images], instances)
    return torch.stack(list(parts.values())).sum()


def extras(run: Run[DetectConfig], data: DetectData, found: list[Detection]) -> dict[str, Callable[[], None]]:
    """Return the writers of additional results: the detections in the test set, and an image of some predictions."""

    def save_detections() -> None:
        if run.is_main:
            write_json(run.folder / _DETECTIONS, found)

    def save_picture() -> None:
        if run.is_main:
            save_predictions(run.folder / _PICTURE, run.evaluated_model, data, run.device, run.config.augment)

    return {**({} if run.config.segments else {_DETECTIONS: save_detections}), _PICTURE: save_picture}
