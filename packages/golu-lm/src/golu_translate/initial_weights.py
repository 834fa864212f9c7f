"""Initial weights of a translator: from a run, a file, or a Hugging Face FSMT, and the sizes of that network."""

from __future__ import annotations

import dataclasses

from golu_core.training import Processes
from golu_core.training.finetuning import (
    GivenWeights,
    Start,
    read_given,
    start_given,
    transformers_name,
    transformers_weights,
    with_sizes_of_source,
)

from .config import TranslationConfig
from .model import Translator
from .task import TASK


def sized_like_source(config: TranslationConfig) -> TranslationConfig:
    """Return the config with the sizes of the network in `--init-from`.

    Raises:
        RequestError: The source cannot be read, or is not a translator of this architecture.
    """
    return with_sizes_of_source(config, TASK, _sized_like_run, _sized_like_fsmt)


def start_of_run(config: TranslationConfig, model: Translator, processes: Processes) -> Start | None:
    """Load the weights that `--init-from` names; return None without `--init-from`.

    Args:
        config: The run's configuration, with the sizes of the source.
        model: The model, changed in place.
        processes: The run's processes.

    Raises:
        RequestError: The weights cannot be read, or belong to a different network.
    """

    def read(source: str) -> GivenWeights:
        name = transformers_name(source)
        if name is None:
            return read_given(source, {})
        from .hugging_face import from_fsmt

        return transformers_weights(
            source, name, lambda: Translator(config.model, config.default_activation), from_fsmt
        )

    return start_given(config, TASK, model, processes, read)


def _sized_like_fsmt(config: TranslationConfig, name: str) -> TranslationConfig:
    from .hugging_face import sized_like

    return dataclasses.replace(config, model=sized_like(name, config.model))


def _sized_like_run(config: TranslationConfig, there: TranslationConfig) -> TranslationConfig:
    """Return the config with the sizes of a run's network; options for training only are kept."""
    return dataclasses.replace(config, model=dataclasses.replace(there.model, dropout=config.model.dropout))
