"""Test metrics, of a model in training and of a finished run."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from golu_core.training.data import evaluation_loader
from golu_core.training.finished import BatchEvaluationFlags, FinishedRun
from golu_core.training.run import Run

from .config import LmConfig
from .data import LmData, TokenWindows, Windows, load_data, random_windows, whole_split
from .model import GPT

PRIMARY = ("perplexity", False)
UNIT = "tokens/s"
OUTPUTS = ("samples/generated.txt",)


@torch.no_grad()
def evaluate(
    run: Run[LmConfig], model: nn.Module, windows: TokenWindows, at_once: int | None = None
) -> dict[str, float]:
    """Test metrics over all processes, each token of each window counted once.

    Args:
        at_once: sequences that a device takes at once; by default the config's.

    Returns:
        `loss`, mean cross-entropy in nats a token; `perplexity`, its exponential; `token_accuracy` in %; and `tokens`.
    """
    model.eval()
    config = run.config
    at_once = at_once or config.evaluation_batch
    loader = evaluation_loader(windows, at_once, run.world_size, run.rank, config.num_workers)
    sums = torch.zeros(3, dtype=torch.float32 if run.device.type == "mps" else torch.float64, device=run.device)
    for batch in run.evaluation_batches(loader):
        inputs, targets, counted = _on_device(batch, run.device)
        with run.accelerator.autocast():
            scores = model(inputs, targets, per_token=True)
        columns = torch.stack([scores.loss, scores.right.float(), torch.ones_like(scores.loss)])
        sums += torch.where(counted, columns, torch.zeros_like(columns)).to(sums.dtype).sum(dim=1)
    loss, right, tokens = run.reduce_sum(sums).tolist()
    mean = loss / tokens
    perplexity = math.exp(mean) if mean < 700 else math.inf
    return {"loss": mean, "perplexity": perplexity, "token_accuracy": 100 * right / tokens, "tokens": tokens}


def _on_device(batch: Windows, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens (N, T), the tokens that follow (N, T), and which of these count (N * T,)."""
    tokens = batch.tokens.to(device, non_blocking=True)
    places = torch.arange(tokens.shape[1] - 1)
    counted = (places < batch.predicted[:, None]).flatten().to(device, non_blocking=True)
    return tokens[:, :-1], tokens[:, 1:], counted


def evaluate_sample(run: Run[LmConfig], model: nn.Module, data: LmData) -> dict[str, float]:
    """The published protocol: metrics on random windows of the test split, other ones after each number of steps."""
    config = run.config
    windows = random_windows(data.test, config.model.context, config.eval_sequences, config.seed, run.position.step)
    metrics = evaluate(run, model, windows)
    del metrics["tokens"]
    return metrics


def evaluate_whole(run: Run[LmConfig], model: nn.Module, data: LmData, at_once: int | None = None) -> dict[str, float]:
    """Metrics on the whole test split in fixed windows; `bits_per_byte` too where the text's length is known."""
    metrics = evaluate(run, model, whole_split(data.test, run.config.model.context), at_once)
    tokens = metrics.pop("tokens")
    if data.test_bytes:
        metrics["bits_per_byte"] = metrics["loss"] * tokens / math.log(2) / data.test_bytes
    return metrics


def evaluate_run(folder: Path, flags: BatchEvaluationFlags) -> None:
    """Prints the metrics of a run folder's final weights on the whole test split."""
    finished = FinishedRun.at(folder, LmConfig)
    config = finished.evaluated_with(flags)
    data = load_data(config)
    finished.check_input("data", data.fingerprint)
    model = GPT(config.model, config.activation)
    finished.load_weights(model)
    with Run(config, task="lm", unit=UNIT, primary=PRIMARY, folder=folder) as run:
        finished.print_beside_result(evaluate_whole(run, model.to(run.device), data, flags.eval_batch), run)
