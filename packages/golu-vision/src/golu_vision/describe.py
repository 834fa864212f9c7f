"""What a run of golu-vision would be: `--dry-run`."""

from __future__ import annotations

from golu_core.training.dry_run import DryRun, parameter_count
from golu_core.training.starting import shown_start

from .config import VisionConfig
from .given import start_of_run
from .models import build_model
from .task import TASK
from .train import check_request, checked_data, epoch_order


def describe(config: VisionConfig) -> None:
    """Prints what a run of the config would be; RequestError where it would be refused."""
    dry = DryRun(config, TASK)
    check_request(config, dry.plan)
    data = dry.data(lambda: checked_data(config, dry.processes), are_own=config.data.is_own)
    model, swapped = build_model(config, config.data.classes if data is None else len(data.classes))
    start = None if data is None else start_of_run(config, model, data.classes, dry.processes)
    order = epoch_order(config, config.data.train_images if data is None else len(data.train))
    dry.show(
        data="" if data is None else f"{len(data.train):,} training and {len(data.test):,} test images",
        model=f"{config.model.name}, {parameter_count(model):,} parameters",
        more=shown_start(start),
        swapped=swapped,
        steps_per_epoch=order.steps_per_epoch,
        batch=f"{config.batch_size} images",
        epoch=f", {order.steps_per_epoch:,} an epoch",
    )
