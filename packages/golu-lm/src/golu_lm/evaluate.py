"""Test metrics during training and for finished runs."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from golu_core.training import BatchEvaluationFlags, Evaluation, FinishedRun

from .config import LmConfig
from .data import LmData, TokenWindows, Windows, load_data, random_windows, whole_split
from .model import GPT


@torch.no_grad()
def evaluate(
    evaluation: Evaluation[LmConfig], model: nn.Module, windows: TokenWindows, at_once: int | None = None
) -> dict[str, float]:
    """Compute test metrics over all processes, with each token of each window counted once.

    Args:
        evaluation: The evaluation's processes, or the training run.
        model: A `GPT`, prepared or not.
        windows: The windows to evaluate.
        at_once: Maximum number of sequences per device and batch; the config's value by default.

    Returns:
        `loss`, the mean cross-entropy in nats per token; `perplexity`, its exponential; `token_accuracy` in %; and
        `tokens`.
    """
    model.eval()
    device = evaluation.device
    sums = torch.zeros(3, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
    for batch in evaluation.test_batches(windows, at_once):
        inputs, targets, counted = _on_device(batch, device)
        with evaluation.processes.autocast():
            scores = model(inputs, targets, per_token=True)
        columns = torch.stack([scores.loss, scores.right.float(), torch.ones_like(scores.loss)])
        sums += torch.where(counted, columns, torch.zeros_like(columns)).to(sums.dtype).sum(dim=1)
    loss, right, tokens = evaluation.processes.sum(sums).tolist()
    mean = loss / tokens
    perplexity = math.exp(mean) if mean < 700 else math.inf
    return {"loss": mean, "perplexity": perplexity, "token_accuracy": 100 * right / tokens, "tokens": tokens}


def _on_device(batch: Windows, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return tokens (N, T), the following tokens (N, T), and a mask of those that count (N * T,)."""
    tokens = batch.tokens.to(device, non_blocking=True)
    places = torch.arange(tokens.shape[1] - 1)
    counted = (places < batch.predicted[:, None]).flatten().to(device, non_blocking=True)
    return tokens[:, :-1], tokens[:, 1:], counted


def evaluate_sample(evaluation: Evaluation[LmConfig], model: nn.Module, data: LmData, step: int) -> dict[str, float]:
    """Compute metrics by the published protocol, on random windows of the test split that depend on the step."""
    config = evaluation.config
    windows = random_windows(data.test, config.model.context, config.eval_sequences, config.seed, step)
    metrics = evaluate(evaluation, model, windows)
    del metrics["tokens"]
    return metrics


def evaluate_whole(
    evaluation: Evaluation[LmConfig], model: nn.Module, data: LmData, at_once: int | None = None
) -> dict[str, float]:
    """Compute metrics on the whole test split in fixed windows, with `bits_per_byte` if the text's size is known."""
    metrics = evaluate(evaluation, model, whole_split(data.test, evaluation.config.model.context), at_once)
    tokens = metrics.pop("tokens")
    if data.test_bytes:
        metrics["bits_per_byte"] = metrics["loss"] * tokens / math.log(2) / data.test_bytes
    return metrics


def evaluate_run(folder: Path, flags: BatchEvaluationFlags) -> None:
    """Print the metrics of a run folder's final weights on the whole test split."""
    finished = FinishedRun.at(folder, LmConfig)
    config = finished.evaluated_with(flags)
    data = load_data(config)
    finished.check_input("data", data.fingerprint)
    model = GPT(config.model, config.activation)
    finished.load_weights(model)
    with Evaluation(config, folder) as evaluation:
        metrics = evaluate_whole(evaluation, model.to(evaluation.device), data, flags.eval_batch)
        finished.print_beside_result(metrics, evaluation.processes)
