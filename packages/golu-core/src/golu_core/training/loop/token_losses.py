"""Cross-entropy of a linear output layer, without the logits of all tokens in memory at once."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_LOGITS_AT_ONCE = {"cpu": 1 << 25, "cuda": 1 << 27}
"""Logits per chunk, by device: in float32, 128 MiB on a CPU, and 512 MiB on a GPU to reduce kernel launches."""


class TokenScores(NamedTuple):
    """The loss and correctness of each token's prediction.

    Attributes:
        loss: Negative log-likelihood in nats, float32 (tokens,).
        right: Whether the token had the largest logit, bool (tokens,).
    """

    loss: Tensor
    right: Tensor


def mean_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Return the mean over N tokens of cross_entropy(hidden @ weight.T, targets), a float32 scalar.

    Matrix products run in autocast's dtype if autocast is enabled. Softmax and loss are computed in float32. The
    gradient of the logits is computed together with the loss, chunk by chunk. Memory therefore holds one chunk of
    logits instead of three full copies, and nothing is computed twice.

    Args:
        hidden: Hidden states, (N, width).
        weight: The weight of the output layer, (vocabulary, width).
        targets: Target tokens, int64 (N,).
    """
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    with torch.autocast(kind, enabled=False):
        loss: Tensor = _MeanCrossEntropy.apply(hidden.to(dtype), weight, targets)
    return loss


@torch.no_grad()
def token_scores(hidden: Tensor, weight: Tensor, targets: Tensor) -> TokenScores:
    """Return each token's loss (N,) and whether it had the largest logit; arguments as in `mean_cross_entropy`."""
    losses, right = [], []
    for rows in _chunks(len(targets), weight):
        logits = F.linear(hidden[rows], weight).float()
        losses.append(F.cross_entropy(logits, targets[rows], reduction="none"))
        right.append(logits.argmax(dim=1) == targets[rows])
    return TokenScores(torch.cat(losses), torch.cat(right))


def _chunks(tokens: int, weight: Tensor) -> list[slice]:
    at_once = _LOGITS_AT_ONCE.get(weight.device.type, _LOGITS_AT_ONCE["cpu"])
    count = -(-tokens * len(weight) // at_once)
    size = -(-tokens // max(1, count))
    return [slice(start, min(start + size, tokens)) for start in range(0, tokens, size)]


class _MeanCrossEntropy(torch.autograd.Function):
    """Save the gradients of the summed loss; backward scales them in float32, so that small fp16 values survive."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        with_gradient = hidden.requires_grad or weight.requires_grad
        columns = weight.to(hidden.dtype)
        hidden_gradient = torch.empty_like(hidden) if with_gradient else None
        weight_gradient = torch.zeros_like(weight) if with_gradient else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for rows in _chunks(len(targets), weight):
            log_shares = F.log_softmax(hidden[rows] @ columns.t(), dim=1, dtype=torch.float32)
            right = targets[rows, None]
            total -= log_shares.gather(1, right).sum()
            if hidden_gradient is None or weight_gradient is None:
                continue
            slope = log_shares.exp_()
            slope.scatter_add_(1, right, slope.new_full((1, 1), -1.0).expand_as(right))
            slope = slope.to(hidden.dtype)
            torch.mm(slope, columns, out=hidden_gradient[rows])
            if slope.dtype == weight_gradient.dtype:
                weight_gradient.addmm_(slope.t(), hidden[rows])
            else:
                weight_gradient += slope.t() @ hidden[rows]
        if hidden_gradient is not None and weight_gradient is not None:
            ctx.save_for_backward(hidden_gradient, weight_gradient)
        ctx.tokens = len(targets)
        return total / len(targets)

    @staticmethod
    @once_differentiable  # a second derivative would be silently wrong
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        hidden_gradient, weight_gradient = ctx.saved_tensors
        scale = gradient / ctx.tokens
        hidden = hidden_gradient.float().mul_(scale).to(hidden_gradient.dtype)
        return hidden, weight_gradient * scale, None
