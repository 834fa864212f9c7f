"""The lines that a language model's run prints before its first step."""

from __future__ import annotations

from typing import Any, cast

import numpy

from golu_core.training import Fingerprint, Opening, SwappedActivations, parameter_count
from golu_core.training.config import limited_steps
from golu_core.training.finetuning import Start, shown_start

from .config import LmConfig
from .data import LmData
from .model import GPT


class _NoTokens:
    """A stand-in for a missing split, with just enough tokens for one window."""

    def __init__(self, context: int) -> None:
        self.tokens = numpy.zeros(context + 1, dtype=numpy.uint8)

    def __len__(self) -> int:
        return len(self.tokens)


def opening(config: LmConfig, data: LmData, model: GPT, swapped: SwappedActivations, start: Start | None) -> Opening:
    """Return the lines about tokens and model."""
    sizes, tokens = config.model, config.batch_size * config.model.context
    passes = limited_steps(config, config.steps) * tokens / len(data.train)
    return Opening(
        data=f"{data.name}, {len(data.train):,} training, {len(data.test):,} {config.holdout} tokens",
        model=f"GPT-2, {sizes.layers} layers, {sizes.heads} heads, width {sizes.width}, context {sizes.context:,}, "
        f"vocabulary {sizes.vocabulary:,}: {parameter_count(model):,} parameters",
        swapped=swapped,
        batch=f"{tokens:,} tokens",
        length=f", {passes:.3g} passes over the data" if data.facts else "",
        more=shown_start(start),
    )


def no_tokens(config: LmConfig) -> LmData:
    """Return a stand-in for the recipe's data, for a dry run without them."""
    empty = cast(Any, _NoTokens(config.model.context))  # nothing reads them
    return LmData(
        name=config.data.name,
        train=empty,
        test=empty,
        test_bytes=None,
        facts={},
        remarks=(),
        fingerprint=Fingerprint(lambda: "missing"),
    )
