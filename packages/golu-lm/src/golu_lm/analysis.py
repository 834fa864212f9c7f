"""Models for `golu-core analyze`: finished runs on their test split, and timing models on random tokens."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from golu_core.training import FinishedRun, RequestError
from golu_core.training.distributed import default_device
from golu_core.training.tasks import AnalysisModel, Batch, TimingModel, spread_keys

from .config import LmConfig
from .data import load_data, whole_split
from .model import GPT, build_model

_WINDOWS_AT_ONCE = 16


def analysis_model(folder: Path, samples: int, data_dir: Path | None) -> AnalysisModel:
    """Return an analysis model on windows of tokens (N, T + 1); each window is one sample. See `MakeAnalysisModel`.

    Raises:
        RequestError: See `MakeAnalysisModel`; or the test split is shorter than a window.
    """
    finished = FinishedRun.at(folder, LmConfig)
    config = finished.config if data_dir is None else dataclasses.replace(finished.config, data_dir=data_dir)
    data = load_data(config)
    finished.check_input("data", data.fingerprint)
    model = GPT(config.model, config.activation)
    finished.load_weights(model)
    device = default_device()
    context = config.model.context
    whole = (len(data.test) - 1) // context  # windows; an incomplete one at the end is dropped
    if not whole:
        raise RequestError(f"the test split of {len(data.test):,} tokens is shorter than a window of {context + 1}")
    windows = whole_split(data.test, context)
    batches: list[Batch] = []
    for keys in spread_keys(whole, samples, _WINDOWS_AT_ONCE):
        batches.append((windows.__getitems__(keys).tokens.to(device),))
    return AnalysisModel(finished.result, model.eval().to(device), batches, _loss, _metrics)


def _scores(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return logits (N * T, vocabulary) and the following tokens (N * T,)."""
    (tokens,) = batch
    logits = model(tokens[:, :-1])
    return logits.flatten(0, 1).float(), tokens[:, 1:].flatten()


def _loss(model: nn.Module, batch: Batch) -> Tensor:
    return nn.functional.cross_entropy(*_scores(model, batch))


@torch.no_grad()
def _metrics(model: nn.Module, batches: Sequence[Batch]) -> dict[str, float]:
    loss, right, count = 0.0, 0, 0
    for batch in batches:
        logits, targets = _scores(model, batch)
        loss += float(nn.functional.cross_entropy(logits, targets, reduction="sum"))
        right += int((logits.argmax(dim=1) == targets).sum())
        count += len(targets)
    mean = loss / count
    perplexity = math.exp(mean) if mean < 700 else math.inf
    return {"loss": mean, "perplexity": perplexity, "token_accuracy": 100 * right / count}


def timing_model(config: LmConfig, samples: int, device: torch.device) -> TimingModel:
    """Return a timing model on windows of the full context length, as `MakeTimingModel` describes."""
    model = build_model(config)[0].to(device)
    tokens = torch.randint(config.model.vocabulary, (samples, config.model.context + 1), device=device)

    def training_loss(network: nn.Module) -> torch.Tensor:
        loss: torch.Tensor = network(tokens[:, :-1], tokens[:, 1:])
        return loss

    return TimingModel(model, training_loss, lambda network: network(tokens[:, :-1]), samples)
