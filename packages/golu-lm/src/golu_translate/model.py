"""The Transformer of "Attention is all you need" (Vaswani et al., 2017), with any activation.

Details that the paper leaves open are as in fairseq's `transformer`: parameter names, position embeddings, and the
initialization (Xavier with zero biases in all linear layers, as in fairseq until 2020).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from golu_core.activation import build_activation
from golu_core.training import Purpose, SwappedActivations, seed_global_generators, swapped_for
from golu_core.training.config import check_fields
from golu_core.training.loop import TokenScores, token_scores

from .config import Transformer, TranslationConfig
from .vocabulary import END, PAD

# shapes: N sentences, B beams, S source subwords, T target subwords, C width, H heads, D = C / H, V vocabulary

_FIRST_POSITION = PAD + 1  # fairseq counts positions from the index after padding


class DecoderState:
    """The decoder's cache between two subwords, for N sentences with B beams each.

    Attributes:
        own: Keys and values of the subwords so far per layer, two tensors of shape (N * B, H, T, D).
        source: Keys and values of the source per layer, two tensors of shape (N, H, S, D).
        mask: (N, 1, 1, S) bool, False for the padding of the sources.
        length: Number of subwords so far.
    """

    def __init__(self, source: list[tuple[Tensor, Tensor]], mask: Tensor) -> None:
        self.own: list[tuple[Tensor, Tensor]] = []
        self.source = source
        self.mask = mask
        self.length = 0

    def extended(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append a new subword to a layer's keys and values, and return them, (N * B, H, T + 1, D)."""
        if layer == len(self.own):
            self.own.append((keys, values))
        else:
            old_keys, old_values = self.own[layer]
            self.own[layer] = torch.cat([old_keys, keys], dim=2), torch.cat([old_values, values], dim=2)
        return self.own[layer]

    def choose(self, rows: Tensor, sentences: Tensor | None) -> None:
        """Keep some beams and some sentences.

        Args:
            rows: (N * B,) int64, the indices of the beams to keep, in their new order, for the N sentences to keep.
            sentences: (N,) int64, the indices of the sentences to keep; None keeps all.
        """
        self.own = [(keys[rows], values[rows]) for keys, values in self.own]
        if sentences is not None:
            self.source = [(keys[sentences], values[sentences]) for keys, values in self.source]
            self.mask = self.mask[sentences]


class Attention(nn.Module):
    """Multi-head attention (section 3.2)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))
        self.heads = heads

    def keys_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Project (N, S, C) to keys and values, two tensors of shape (N, H, S, D)."""
        return self._by_head(self.k_proj(x)), self._by_head(self.v_proj(x))

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """Return the attention output at each position.

        Args:
            x: (N, T, C).
            keys, values: (N, H, S, D).
            mask: bool, broadcast to (N, H, T, S): True where a query may attend to a key.
            causal: Let each position attend only to itself and earlier positions.

        Returns:
            The output, (N, T, C).
        """
        y = F.scaled_dot_product_attention(self._by_head(self.q_proj(x)), keys, values, mask, is_causal=causal)
        found: Tensor = self.out_proj(y.transpose(1, 2).flatten(2))
        return found

    def _by_head(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class _Layer(nn.Module):
    """Self-attention and feed-forward layers with the activation, shared by encoder and decoder (section 3.3)."""

    def __init__(self, model: Transformer, activation: str) -> None:
        super().__init__()
        self.self_attn = Attention(model.width, model.heads)
        self.self_attn_layer_norm = nn.LayerNorm(model.width)
        self.fc1 = nn.Linear(model.width, model.feed_forward)
        self.activation = build_activation(activation)
        self.fc2 = nn.Linear(model.feed_forward, model.width)
        self.final_layer_norm = nn.LayerNorm(model.width)
        self.dropout = nn.Dropout(model.dropout)

    def feed_forward(self, x: Tensor) -> Tensor:
        """Map (N, T, C) to (N, T, C), with residual connection and layer norm."""
        y: Tensor = self.final_layer_norm(x + self.dropout(self.fc2(self.activation(self.fc1(x)))))
        return y


class EncoderLayer(_Layer):
    """Self-attention and feed-forward layers."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map (N, S, C) to (N, S, C); `mask` (N, 1, 1, S) bool is False for padding."""
        attended = self.self_attn(x, *self.self_attn.keys_and_values(x), mask)
        return self.feed_forward(self.self_attn_layer_norm(x + self.dropout(attended)))


class DecoderLayer(_Layer):
    """Causal self-attention, attention to the source, and feed-forward layers."""

    def __init__(self, model: Transformer, activation: str) -> None:
        super().__init__(model, activation)
        self.encoder_attn = Attention(model.width, model.heads)
        self.encoder_attn_layer_norm = nn.LayerNorm(model.width)

    def forward(self, x: Tensor, source: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        """Map (N, T, C) to (N, T, C).

        Args:
            x: (N, T, C), padded at the end, so that causal attention never reaches the padding.
            source: Keys and values of the encoder's output, (N, H, S, D) each.
            mask: (N, 1, 1, S) bool, False for the padding of the source.
        """
        attended = self.self_attn(x, *self.self_attn.keys_and_values(x), causal=True)
        return self._rest(self.self_attn_layer_norm(x + self.dropout(attended)), source, mask)

    def step(self, x: Tensor, layer: int, state: DecoderState) -> Tensor:
        """Process one subword of each beam, (N, B, C) to (N, B, C), and append it to the state."""
        rows = x.flatten(0, 1).unsqueeze(1)
        keys, values = state.extended(layer, *self.self_attn.keys_and_values(rows))
        attended = self.self_attn(rows, keys, values).view_as(x)
        # the beams of a sentence are laid out along the sequence dimension, so they share one copy of the source
        return self._rest(self.self_attn_layer_norm(x + attended), state.source[layer], state.mask)

    def _rest(self, x: Tensor, source: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        x = self.encoder_attn_layer_norm(x + self.dropout(self.encoder_attn(x, *source, mask)))
        return self.feed_forward(x)


class Translator(nn.Module):
    """The Transformer, with one embedding matrix shared by encoder, decoder, and output layer (section 3.4).

    Args:
        model: The model's sizes.
        activation: Name of the registered activation of the feed-forward layers.

    Raises:
        RequestError: The width is not divisible by the number of heads, or a size is not positive.
    """

    def __init__(self, model: Transformer, activation: str) -> None:
        super().__init__()
        check_fields(model, "--model.")
        self.sizes = model
        self.embedding = nn.Embedding(model.vocabulary, model.width, padding_idx=PAD)
        self.encoder = nn.ModuleList(EncoderLayer(model, activation) for _ in range(model.layers))
        self.decoder = nn.ModuleList(DecoderLayer(model, activation) for _ in range(model.layers))
        self.dropout = nn.Dropout(model.dropout)
        self.positions: Tensor
        self.register_buffer("positions", position_table(model.longest, model.width), persistent=False)
        self._initialize()

    def _initialize(self) -> None:
        """Initialize embeddings from N(0, 1 / sqrt(C)) and matrices Xavier-uniform, with Q, K, and V as one matrix."""
        nn.init.normal_(self.embedding.weight, std=self.sizes.width**-0.5)
        with torch.no_grad():
            self.embedding.weight[PAD].zero_()
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                in_one = name.endswith(("q_proj", "k_proj", "v_proj"))
                nn.init.xavier_uniform_(module.weight, gain=1 / math.sqrt(2) if in_one else 1.0)
                nn.init.zeros_(module.bias)

    def forward(
        self,
        source: Tensor,
        previous: Tensor,
        targets: Tensor | None = None,
        places: Tensor | None = None,
        *,
        smoothing: float = 0.0,
        per_token: bool = False,
    ) -> Tensor | TokenScores:
        """Return the logits of the following subwords, or scores of the targets.

        Args:
            source: (N, S) int64, each sentence with its end-of-sentence symbol, then padding.
            previous: (N, T) int64, the translation so far: the end-of-sentence symbol, then all subwords but the last.
            targets: (M,) int64, the following subwords, without padding.
            places: (M,) int64, the position of each target in N * T.
            smoothing: Label smoothing: the fraction of the probability that is spread over all V subwords.
            per_token: Score each subword instead of summing the loss, without gradient and label smoothing.

        Returns:
            Without targets, the logits (N, T, V). With targets, the sum of the cross-entropies in nats, a float32
            scalar, or with `per_token` a TokenScores of M subwords.
        """
        encoded, mask = self.encode(source)
        x = self._embedded(previous, self.positions[: previous.shape[1]])
        for layer in self._decoder_layers:
            x = layer(x, layer.encoder_attn.keys_and_values(encoded), mask)
        if targets is None or places is None:
            return F.linear(x, self.embedding.weight)
        hidden = x.flatten(0, 1).index_select(0, places)
        if per_token:
            return token_scores(hidden, self.embedding.weight, targets)
        logits = F.linear(hidden, self.embedding.weight)
        # fairseq's criterion, published with the recipe: (1 - e) times the target's loss plus e / V times each
        # subword's
        return F.cross_entropy(logits.float(), targets, label_smoothing=smoothing, reduction="sum")

    def encode(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Encode sources (N, S) to (N, S, C), and return a mask (N, 1, 1, S) that is False for padding."""
        mask = (source != PAD)[:, None, None, :]
        x = self._embedded(source, self.positions[: source.shape[1]])
        for layer in self.encoder:
            x = layer(x, mask)
        return x, mask

    def begin(self, source: Tensor) -> DecoderState:
        """Return the decoder's state before the first subword of the translations of (N, S) sources."""
        encoded, mask = self.encode(source)
        return DecoderState([layer.encoder_attn.keys_and_values(encoded) for layer in self._decoder_layers], mask)

    def step(self, tokens: Tensor, state: DecoderState) -> Tensor:
        """Return the logits (N, B, V) after the last subword (N, B) of each beam, and extend the state."""
        x = self._embedded(tokens, self.positions[state.length : state.length + 1])
        for number, layer in enumerate(self._decoder_layers):
            x = layer.step(x, number, state)
        state.length += 1
        return F.linear(x, self.embedding.weight)

    @property
    def _decoder_layers(self) -> Iterator[DecoderLayer]:
        return cast(Iterator[DecoderLayer], iter(self.decoder))

    def _embedded(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Embed (N, T) to (N, T, C); `positions` is (T, C), or (1, C) if all tokens are at the same position."""
        x: Tensor = self.dropout(self.embedding(tokens) * math.sqrt(self.sizes.width) + positions)
        return x


def build_model(config: TranslationConfig) -> tuple[Translator, SwappedActivations]:
    """Build the model with weights that depend on the seed alone, and return which activations were swapped."""
    seed_global_generators(config.seed, Purpose.WEIGHTS)
    model = Translator(config.model, config.default_activation)
    sentence = torch.full((1, 1), END)
    swapped = swapped_for(model, config.default_activation, config.activation, (sentence, sentence))
    return model, swapped


def position_table(longest: int, width: int) -> Tensor:
    """Return sinusoidal position embeddings, (longest, width) float32, as in tensor2tensor and fairseq.

    They differ from section 3.5 in the order (all sines, then all cosines) and in the longest wavelength, which is
    exactly 10,000 · 2π.
    """
    half = width // 2
    rates = torch.exp(torch.arange(half, dtype=torch.float32) * (-math.log(10_000) / (half - 1)))
    angles = torch.arange(_FIRST_POSITION, _FIRST_POSITION + longest, dtype=torch.float32)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def first_symbols(sentences: int, beams: int, device: torch.device) -> Tensor:
    """Return the first input of each translation, (N, B): the end-of-sentence symbol, as in fairseq."""
    return torch.full((sentences, beams), END, dtype=torch.int64, device=device)
