"""Initial weights of a language model: from a run, a file, or a Hugging Face GPT-2, and the sizes of that network."""

from __future__ import annotations

import dataclasses

from golu_core.training import Processes, RequestError
from golu_core.training.finetuning import (
    GivenWeights,
    Start,
    read_given,
    start_given,
    transformers_name,
    transformers_weights,
    with_sizes_of_source,
)

from .config import LmConfig
from .model import GPT
from .task import TASK

_POSITIONS = "wpe.weight"
_BYTE_PAIRS = 50_257  # tokens of GPT-2


def sized_like_source(config: LmConfig) -> LmConfig:
    """Return the config with the sizes of the network in `--init-from`; a shorter context is kept.

    Raises:
        RequestError: The source cannot be read, or is not a language model of this architecture.
    """
    return with_sizes_of_source(config, TASK, _sized_like_run, _sized_like_gpt2)


def start_of_run(config: LmConfig, model: GPT, processes: Processes) -> Start | None:
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
            return _cropped(read_given(source, {}), model)
        from .hugging_face import load_hugging_face

        return transformers_weights(
            source, name, lambda: GPT(config.model, config.default_activation), load_hugging_face
        )

    return start_given(config, TASK, model, processes, read)


def _sized_like_gpt2(config: LmConfig, name: str) -> LmConfig:
    from .hugging_face import sized_like

    model = sized_like(name, config.model)
    if config.data.tokenizer == "bytes" and model.vocabulary >= _BYTE_PAIRS:
        raise RequestError(f"--init-from {config.init_from} knows byte pairs, not bytes: add --data.tokenizer gpt2")
    return dataclasses.replace(config, model=model)


def _sized_like_run(config: LmConfig, there: LmConfig) -> LmConfig:
    """Return the config with the sizes of a run's network; options for training only are kept."""
    tokenizers = {config.data.tokenizer, there.data.tokenizer} - {"none"}
    if len(tokenizers) > 1:
        raise RequestError(
            f"--init-from {config.init_from} knows the tokens of {there.data.tokenizer}, and the data are of "
            f"{config.data.tokenizer}"
        )
    context = min(config.model.context, there.model.context)
    return dataclasses.replace(
        config, model=dataclasses.replace(there.model, dropout=config.model.dropout, context=context)
    )


def _cropped(given: GivenWeights, model: GPT) -> GivenWeights:
    """Crop the position embeddings to the model's context, as nanoGPT does."""
    count = len(model.state_dict()[_POSITIONS])
    tensors = {name: tensor[:count] if name.endswith(_POSITIONS) else tensor for name, tensor in given.tensors.items()}
    return dataclasses.replace(given, tensors=tensors)
