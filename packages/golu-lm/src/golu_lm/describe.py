"""What a run of golu-lm would be: `--dry-run`."""

from __future__ import annotations

from golu_core.training.config import limited_steps
from golu_core.training.dry_run import DryRun, parameter_count
from golu_core.training.starting import shown_start

from .config import LmConfig
from .start_weights import start_of_run, with_sizes_of_source
from .task import TASK
from .train import build_model, checked_data


def describe(config: LmConfig) -> None:
    """Prints what a run of the config would be; RequestError where it would be refused."""
    config = with_sizes_of_source(config)
    dry, sizes = DryRun(config, TASK), config.model
    model, swapped = build_model(config)
    start = start_of_run(config, model, dry.processes)
    data = dry.data(lambda: checked_data(config, dry.processes), are_own=config.data.text is not None)
    tokens = config.batch_size * sizes.context
    found = passes = ""
    if data is not None:
        found = f"{len(data.train):,} training, {len(data.test):,} test tokens"
        passes = f", {limited_steps(config, config.steps) * tokens / len(data.train):.3g} passes over the data"
    dry.show(
        data=found,
        model=f"GPT-2, {sizes.layers} layers, {sizes.heads} heads, width {sizes.width}, context {sizes.context:,}, "
        f"vocabulary {sizes.vocabulary:,}: {parameter_count(model):,} parameters",
        more=shown_start(start),
        swapped=swapped,
        steps_per_epoch=config.eval_every,
        batch=f"{tokens:,} tokens",
        epoch=passes,
    )
