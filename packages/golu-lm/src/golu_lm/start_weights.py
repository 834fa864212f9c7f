"""`--init-from`: a run that starts from the weights of another, of a file or of a Hugging Face model, and its sizes."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from golu_core.training import Processes, RequestError
from golu_core.training.finetuning import GivenWeights, Start, read_given, start_given
from golu_core.training.runs import RESULT_FILE, read_config, run_folder
from golu_core.training.storage import RUN_MARKER

from .config import LmConfig
from .task import TASK
from .translation.config import TranslationConfig

LmOrTranslation = TypeVar("LmOrTranslation", LmConfig, TranslationConfig)
_POSITIONS = "wpe.weight"
_HUB = "hf:"
_BYTE_PAIRS = 50_257  # tokens of GPT-2


def with_sizes_of_source(config: LmOrTranslation) -> LmOrTranslation:
    """The config with the sizes of the network that it starts from, or of the run in its folder that started so.

    A file names no sizes: those of the config must be its own. A shorter context stays.

    Raises:
        RequestError: the source cannot be read, or this package has no such network.
    """
    if config.init_from is None or _is_file(config.init_from):
        return config
    with contextlib.suppress(RequestError):
        there = read_config(run_folder(config, TASK.name), type(config))
        if there.init_from == config.init_from:
            return dataclasses.replace(config, model=there.model)
    if _is_run(config.init_from):
        return _sized_like_run(config, read_config(Path(config.init_from).expanduser(), type(config)))
    sized_like, _ = _hugging_face(config)
    model = sized_like(_on_the_hub(config.init_from), config.model)
    if isinstance(config, LmConfig) and config.data.tokenizer == "bytes" and model.vocabulary >= _BYTE_PAIRS:
        raise RequestError(f"--init-from {config.init_from} knows byte pairs, not bytes: add --data.tokenizer gpt2")
    return dataclasses.replace(config, model=model)


def start_of_run(config: LmConfig | TranslationConfig, model: nn.Module, processes: Processes) -> Start | None:
    """Loads the weights that `--init-from` names; None where it names none.

    Args:
        config: of the run, with the sizes of the source.
        model: is changed in place.
        processes: of the run.

    Raises:
        RequestError: the weights cannot be read, or are of another network.
    """

    def read(source: str) -> GivenWeights:
        if not (_is_run(source) or _is_file(source)):
            return _of_hugging_face(config, source)
        return _cropped(read_given(source, {}), model)

    return start_given(config, TASK.name, model, processes, read)


def _is_run(source: str) -> bool:
    return any((Path(source).expanduser() / name).exists() for name in (RESULT_FILE, RUN_MARKER))


def _is_file(source: str) -> bool:
    return Path(source).expanduser().is_file()


def _on_the_hub(source: str) -> str:
    return source.removeprefix(_HUB)


def _sized_like_run(config: Any, there: Any) -> Any:
    """The config with the sizes of a run's network; what is only of training stays."""
    model = dataclasses.replace(there.model, dropout=config.model.dropout)
    if isinstance(config, LmConfig):
        tokenizers = {config.data.tokenizer, there.data.tokenizer} - {"none"}
        if len(tokenizers) > 1:
            raise RequestError(
                f"--init-from {config.init_from} knows the tokens of {there.data.tokenizer}, and the data are of "
                f"{config.data.tokenizer}"
            )
        model = dataclasses.replace(model, context=min(config.model.context, model.context))
    return dataclasses.replace(config, model=model)


def _cropped(given: GivenWeights, model: nn.Module) -> GivenWeights:
    """The weights with as many positions as the model has, as nanoGPT crops them."""
    own = model.state_dict()
    if _POSITIONS not in own:
        return given
    tensors = {
        name: tensor[: len(own[_POSITIONS])] if name.endswith(_POSITIONS) else tensor
        for name, tensor in given.tensors.items()
    }
    return dataclasses.replace(given, tensors=tensors)


def _of_hugging_face(config: LmConfig | TranslationConfig, source: str) -> GivenWeights:
    """The weights of a Hugging Face model, under our names."""
    from .hugging_face import activation_of

    place = _on_the_hub(source)
    _, load = _hugging_face(config)
    with torch.random.fork_rng(devices=[]):  # the weights that are overwritten cost no random number of the run
        network = _plain_network(config)
    load(network, place)
    return GivenWeights(source, network.state_dict(), activation_of(place))


def _plain_network(config: LmConfig | TranslationConfig) -> nn.Module:
    if isinstance(config, TranslationConfig):
        from .translation.model import Translator

        return Translator(config.model, config.default_activation)
    from .model import GPT

    return GPT(config.model, config.default_activation)


def _hugging_face(config: LmConfig | TranslationConfig) -> tuple[Callable[[str, Any], Any], Callable[[Any, str], None]]:
    """What reads the sizes of a Hugging Face model, and what loads its weights."""
    if isinstance(config, TranslationConfig):
        from .translation import hugging_face as fsmt

        return fsmt.sized_like, fsmt.from_fsmt
    from . import hugging_face as gpt2

    return gpt2.sized_like, gpt2.load_hugging_face
