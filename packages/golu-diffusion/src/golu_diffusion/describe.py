"""What a run of golu-diffusion would be: `--dry-run`."""

from __future__ import annotations

from golu_core.training.dry_run import DryRun, parameter_count
from golu_core.training.starting import shown_start

from .config import DiffusionConfig
from .fid import check_fid
from .task import TASK
from .train import build_model, checked_data, epoch_order, start_of_run


def describe(config: DiffusionConfig) -> None:
    """Prints what a run of the config would be; RequestError where it would be refused."""
    dry = DryRun(config, TASK)
    check_fid(config)
    model, swapped = build_model(config)
    start = start_of_run(config, model, dry.processes)
    data = dry.data(lambda: checked_data(config, dry.processes), are_own=config.data.is_own)
    images = (config.data.train_size or config.batch_size) if data is None else data.train.source.count
    steps_per_epoch = epoch_order(config, images).steps_per_epoch
    dry.show(
        data="" if data is None else f"{images:,} training, {data.test.source.count:,} test images",
        model=f"UNet, {parameter_count(model):,} parameters",
        more=shown_start(start),
        swapped=swapped,
        steps_per_epoch=steps_per_epoch,
        batch=f"{config.batch_size} images",
        epoch=f", {steps_per_epoch:,} an epoch",
    )
