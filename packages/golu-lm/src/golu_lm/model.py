"""GPT-2 in nanoGPT's form, with any activation in its MLP."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from golu_core.activation import build_activation, gated
from golu_core.training import Purpose, SwappedActivations, seed_global_generators, swapped_for
from golu_core.training.config import check_fields
from golu_core.training.loop import TokenScores, mean_cross_entropy, token_scores

from .config import LmConfig, Model

# shapes: N sequences, T tokens, P tokens in the cache, C width, H heads, V vocabulary


class KeyValueCache:
    """Keys and values of the tokens so far, a pair of (N, H, P, C / H) tensors for each layer."""

    def __init__(self) -> None:
        self.layers: list[tuple[Tensor, Tensor]] = []

    @property
    def length(self) -> int:
        """The number of cached tokens."""
        return self.layers[0][0].shape[2] if self.layers else 0

    def extended(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append new tokens to a layer's keys and values, (N, H, T, C / H), and return all of them."""
        if layer == len(self.layers):
            self.layers.append((keys, values))
        else:
            old_keys, old_values = self.layers[layer]
            self.layers[layer] = torch.cat([old_keys, keys], dim=2), torch.cat([old_values, values], dim=2)
        return self.layers[layer]


class CausalSelfAttention(nn.Module):
    """Masked multi-head attention."""

    def __init__(self, model: Model, layer: int) -> None:
        super().__init__()
        self.c_attn = nn.Linear(model.width, 3 * model.width, bias=model.bias)
        self.c_proj = nn.Linear(model.width, model.width, bias=model.bias)
        self.dropout = model.dropout
        self.heads = model.heads
        self.layer = layer

    def forward(self, x: Tensor, cache: KeyValueCache | None) -> Tensor:
        """Map (N, T, C) to (N, T, C); each token attends to itself, earlier tokens, and the cache."""
        n, t, c = x.shape
        q, k, v = (
            part.view(n, t, self.heads, c // self.heads).transpose(1, 2) for part in self.c_attn(x).split(c, dim=2)
        )
        mask = None
        if cache is not None:
            k, v = cache.extended(self.layer, k, v)
            before = k.shape[2] - t
            if before:  # torch's causal mask is aligned to the upper left corner
                mask = torch.ones(t, before + t, dtype=torch.bool, device=x.device).tril(before)
        rate = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=rate, is_causal=mask is None)
        return F.dropout(self.c_proj(y.transpose(1, 2).reshape(n, t, c)), rate)


class Mlp(nn.Module):
    """Two linear layers with the activation between them, or gated: the first half of c_fc gates the second."""

    def __init__(self, model: Model, activation: str) -> None:
        super().__init__()
        self.is_gated = model.mlp == "gated"
        self.c_fc = nn.Linear(model.width, model.hidden * (2 if self.is_gated else 1), bias=model.bias)
        self.activation = build_activation(activation)
        self.c_proj = nn.Linear(model.hidden, model.width, bias=model.bias)
        self.dropout = nn.Dropout(model.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, T, C) to (N, T, C)."""
        hidden = self.c_fc(x)
        if self.is_gated:
            gate, up = hidden.chunk(2, dim=-1)
            hidden = gated(self.activation, gate, up)
        else:
            hidden = self.activation(hidden)
        y: Tensor = self.dropout(self.c_proj(hidden))
        return y


class Block(nn.Module):
    """Attention and MLP, each with a layer norm before it and a residual connection around both."""

    def __init__(self, model: Model, activation: str, layer: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(model.width, bias=model.bias)
        self.attn = CausalSelfAttention(model, layer)
        self.ln_2 = nn.LayerNorm(model.width, bias=model.bias)
        self.mlp = Mlp(model, activation)

    def forward(self, x: Tensor, cache: KeyValueCache | None) -> Tensor:
        """Map (N, T, C) to (N, T, C)."""
        x = x + self.attn(self.ln_1(x), cache)
        y: Tensor = x + self.mlp(self.ln_2(x))
        return y


class GPT(nn.Module):
    """The language model; the output layer shares the weights of the token embedding.

    Args:
        model: The model's sizes.
        activation: Name of the registered activation of the MLPs.

    Raises:
        RequestError: The width is not divisible by the number of heads, or a size is not positive.
    """

    def __init__(self, model: Model, activation: str) -> None:
        super().__init__()
        check_fields(model, "--model.")
        self.sizes = model
        self.wte = nn.Embedding(model.vocabulary, model.width)
        self.wpe = nn.Embedding(model.context, model.width)
        self.drop = nn.Dropout(model.dropout)
        self.h = nn.ModuleList(Block(model, activation, layer) for layer in range(model.layers))
        self.ln_f = nn.LayerNorm(model.width, bias=model.bias)
        self._initialize()

    def _initialize(self) -> None:
        """Normal weights with std 0.02, or 0.02 / sqrt(2 layers) before each residual sum (GPT-2, section 2.3)."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim == 2:
                residual = name.endswith("c_proj.weight")
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * self.sizes.layers) if residual else 0.02)

    def forward(
        self,
        tokens: Tensor,
        targets: Tensor | None = None,
        *,
        per_token: bool = False,
        cache: KeyValueCache | None = None,
    ) -> Tensor | TokenScores:
        """Return the logits of the following tokens, or scores of the targets.

        Args:
            tokens: (N, T) int64; T plus the cache's length may not exceed the context.
            targets: (N, T) int64, the following tokens.
            per_token: Score each token instead of averaging the loss, without gradient.
            cache: Keys and values of earlier tokens; the new ones are appended.

        Returns:
            Without targets, the logits (N, T, V). With targets, the mean cross-entropy in nats, a float32 scalar, or
            with `per_token` a TokenScores of N * T tokens.
        """
        before = 0 if cache is None else cache.length
        positions = torch.arange(before, before + tokens.shape[1], device=tokens.device)
        x = self.drop(self.wte(tokens) + self.wpe(positions))
        for block in self.h:
            x = block(x, cache)
        x = self.ln_f(x)
        if targets is None:
            return F.linear(x, self.wte.weight)
        score = token_scores if per_token else mean_cross_entropy
        return score(x.flatten(0, 1), self.wte.weight, targets.flatten())


def build_model(config: LmConfig) -> tuple[GPT, SwappedActivations]:
    """Build the model with weights that depend on the seed alone, and return which activations were swapped."""
    seed_global_generators(config.seed, Purpose.WEIGHTS)
    model = GPT(config.model, config.default_activation)
    swapped = swapped_for(model, config.default_activation, config.activation, (torch.zeros(1, 1, dtype=torch.int64),))
    return model, swapped


def flops_per_token(model: GPT) -> int:
    """Return the FLOPs of training on one token, forward and backward (PaLM, appendix B): 6 N + 12 L C T.

    N counts all parameters except the position embedding, as in nanoGPT.
    """
    sizes = model.sizes
    parameters = sum(p.numel() for p in model.parameters()) - sizes.context * sizes.width
    return 6 * parameters + 12 * sizes.layers * sizes.width * sizes.context
