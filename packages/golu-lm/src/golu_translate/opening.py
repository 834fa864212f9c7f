"""The lines that a translator's run prints before the first step."""

from __future__ import annotations

from golu_core.training import Opening, SwappedActivations, parameter_count
from golu_core.training.config import limited_steps
from golu_core.training.finetuning import Start, shown_start

from .bundles import TrainingBundles, padding_share
from .config import TranslationConfig
from .data import PairData
from .model import Translator


def opening(
    config: TranslationConfig,
    data: PairData,
    model: Translator,
    swapped: SwappedActivations,
    start: Start | None,
    dataset: TrainingBundles,
) -> Opening:
    """Return the lines about pairs and model."""
    sizes = config.model
    padding = 100 * padding_share(data.train, dataset.bundles)
    passes = limited_steps(config, config.steps) / dataset.order.steps_per_pass
    return Opening(
        data=f"{data.name}, {len(data.train.source):,} training, {len(data.test.source):,} {config.holdout} pairs",
        model=f"Transformer, {sizes.layers} + {sizes.layers} layers, {sizes.heads} heads, width {sizes.width}, "
        f"vocabulary {sizes.vocabulary:,}: {parameter_count(model):,} parameters",
        swapped=swapped,
        batch=f"{config.batch_size:,} bundles of at most {config.data.bundle_tokens:,} subwords, "
        f"{dataset.mean_step:,.0f} target subwords, {padding:.1f}% padding",
        length=f", {passes:.3g} passes over the data",
        more=shown_start(start),
    )
