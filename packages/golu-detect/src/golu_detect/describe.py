"""What a run of golu-detect would be: `--dry-run`."""

from __future__ import annotations

from golu_core.training.data import EpochOrder
from golu_core.training.dry_run import DryRun, parameter_count
from golu_core.training.starting import shown_start

from .config import DetectConfig
from .given import start_of_run
from .models import backbone_weights, build_model
from .orders import training_order
from .task import TASK
from .train import check_request, checked_data


def describe(config: DetectConfig) -> None:
    """Prints what a run of the config would be; RequestError where it would be refused."""
    dry = DryRun(config, TASK)
    check_request(config, dry.processes, dry.plan)
    backbone = backbone_weights(config)
    data = dry.data(lambda: checked_data(config, dry.processes), are_own=config.data.is_own)
    found = ""
    if data is None:
        order = EpochOrder(
            config.data.train_size or config.batch_size, config.batch_size, config.seed, config.drop_last
        )
        steps_per_epoch = order.steps_per_epoch
    else:
        steps_per_epoch = training_order(config, data.train.images).steps_per_epoch
        found = (
            f"{len(data.train):,} training and {len(data.test):,} test images, {data.classes} classes with the "
            f"background; {data.facts['left_out']:,} training images without objects left out"
        )
    model, swapped = build_model(config, config.data.expected_classes if data is None else data.classes, backbone)
    start = None if data is None else start_of_run(config, model, data, dry.processes)
    weights = config.backbone or config.init_from or "none, trained from scratch"
    trained = parameter_count(model, trained_only=True)
    dry.show(
        data=found,
        model=f"{config.model.kind}, {parameter_count(model):,} parameters, {trained:,} of them are trained",
        more=[("backbone", f"{config.model.backbone}, weights: {weights}"), *shown_start(start)],
        swapped=swapped,
        steps_per_epoch=steps_per_epoch,
        batch=f"{config.batch_size} images",
        epoch=f", {steps_per_epoch:,} an epoch",
    )
