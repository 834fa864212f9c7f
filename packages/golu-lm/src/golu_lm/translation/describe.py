"""What a run of a translator would be: `--dry-run`."""

from __future__ import annotations

from golu_core.training.config import limited_steps
from golu_core.training.dry_run import DryRun, parameter_count
from golu_core.training.starting import shown_start

from ..start_weights import start_of_run, with_sizes_of_source
from ..task import TASK
from .bundles import BundleOrder, TrainingBundles, bundles_of, padding_share
from .config import TranslationConfig
from .train import build_translator, checked_pairs


def describe_translator(config: TranslationConfig) -> None:
    """Prints what a run of the config would be; RequestError where it would be refused."""
    config = with_sizes_of_source(config)
    dry, sizes = DryRun(config, TASK), config.model
    model, swapped = build_translator(config)
    start = start_of_run(config, model, dry.processes)
    data = dry.data(lambda: checked_pairs(config, dry.processes))
    found = passes = ""
    batch = f"{config.batch_size:,} bundles of at most {config.data.bundle_tokens:,} subwords"
    if data is not None:
        bundles = bundles_of(data.train, config.data.bundle_tokens, config.seed)
        order = BundleOrder(len(bundles), config.batch_size, config.seed, config.eval_every)
        dataset = TrainingBundles(data.train, bundles, order)
        found = f"{len(data.train.source):,} training, {len(data.test.source):,} test pairs"
        batch += f", {dataset.mean_step:,.0f} target subwords, {100 * padding_share(data.train, bundles):.1f} % padding"
        passes = f", {limited_steps(config, config.steps) / order.steps_per_pass:.3g} passes over the data"
    dry.show(
        data=found,
        model=f"Transformer, {sizes.layers} + {sizes.layers} layers, {sizes.heads} heads, width {sizes.width}, "
        f"vocabulary {sizes.vocabulary:,}: {parameter_count(model):,} parameters",
        more=shown_start(start),
        swapped=swapped,
        steps_per_epoch=config.eval_every,
        batch=batch,
        epoch=passes,
    )
