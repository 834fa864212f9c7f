"""Generate text with a trained model, one token at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

from golu_core.training import FinishedRun, NonNegativeFloat, PositiveInt, Purpose, RequestError, Seed
from golu_core.training.data import generator
from golu_core.training.distributed import default_device
from golu_core.training.messages import say, say_data
from golu_core.training.runs import finite
from golu_core.training.tasks import parsed_run_flags

from .config import LmConfig
from .model import GPT, KeyValueCache
from .tokenizers import Tokenizer, build_tokenizer, decoded_stream, encode_prompt


@torch.no_grad()
def generated_tokens(
    model: nn.Module,
    prompt: list[int],
    count: int,
    *,
    context: int,
    temperature: float,
    top_k: int | None,
    seed: int,
    cached: bool = True,
) -> Iterator[int]:
    """Yield the tokens that follow a prompt, each drawn from the model's distribution.

    While prompt and text fit in the context, keys and values of earlier tokens are cached. Beyond that the window
    slides, which changes every position, so the model processes the whole window for each token, as nanoGPT does.

    Args:
        model: The GPT, in evaluation mode.
        prompt: At least one token; if it is longer than the context, only its end is used.
        count: Number of tokens to draw.
        context: The model's context length.
        temperature: Divisor of the logits; 0 always selects the most probable token.
        top_k: Draw only from this many of the most probable tokens.
        seed: Seed for the draws.
        cached: False disables the cache, for comparison.

    Raises:
        RunFailure: The network's outputs are not finite.
    """
    device = next(model.parameters()).device
    draws = generator(seed, Purpose.GENERATE)
    tokens = list(prompt)
    cache = KeyValueCache()
    for _ in range(count):
        if cached and len(tokens) <= context:
            unseen = torch.tensor([tokens[cache.length :]], device=device)
            logits = model(unseen, cache=cache)
        else:
            logits = model(torch.tensor([tokens[-context:]], device=device))
        token = _drawn(logits[0, -1].float().cpu(), temperature, top_k, draws)
        tokens.append(token)
        yield token


def _drawn(logits: Tensor, temperature: float, top_k: int | None, draws: torch.Generator) -> int:
    finite(logits, "the network's outputs")
    if temperature == 0:
        return int(logits.argmax())
    if top_k is not None:
        lowest = logits.topk(min(top_k, len(logits))).values[-1]
        logits = logits.masked_fill(logits < lowest, -torch.inf)
    probabilities = (logits / temperature).softmax(dim=0)
    return int(torch.multinomial(probabilities, 1, generator=draws))


def sample_texts(model: nn.Module, config: LmConfig, tokenizer: Tokenizer, texts: int = 3) -> str:
    """Generate a few unprompted texts at temperature 0.8 from the top 200 tokens, nanoGPT's defaults."""
    model.eval()
    parts = []
    for number in range(texts):
        tokens = generated_tokens(
            model,
            [tokenizer.end_of_text],
            config.sample_tokens,
            context=config.model.context,
            temperature=0.8,
            top_k=200,
            seed=number,
        )
        parts.append("".join(decoded_stream(tokenizer, tokens)))
    return f"\n\n{'-' * 80}\n\n".join(parts) + "\n"


@dataclass(frozen=True)
class GenerateFlags:
    """Generate text with a finished run."""

    prompt: str = ""
    """Text to continue. By default, generation starts a new document."""
    tokens: PositiveInt = 500
    """Number of tokens to generate."""
    temperature: NonNegativeFloat = 0.8
    """Sampling temperature: lower is more predictable, higher is more varied. 0 is greedy decoding."""
    top_k: PositiveInt | None = 200
    """Sample only from the K most likely tokens (top-k sampling)."""
    seed: Seed = 0
    """Seed for sampling."""
    vocab_file: Path | None = None
    """GPT-2's vocabulary, where tiktoken cannot download it; by default that of the run."""


def generate_command(arguments: Sequence[str]) -> None:
    """Run `golu-lm generate RUN_DIR [flags]`, which prints the text while it is generated."""
    folder, flags = parsed_run_flags(GenerateFlags, arguments, "golu-lm generate")
    finished = FinishedRun.at(folder, LmConfig)
    config = finished.config
    tokenizer = build_tokenizer(config.data.tokenizer, flags.vocab_file or config.data.vocab_file)
    prompt = encode_prompt(tokenizer, flags.prompt) or [tokenizer.end_of_text]
    outside = [token for token in prompt if token >= config.model.vocabulary]
    if outside:
        raise RequestError(
            f"the prompt has token {outside[0]}, but the model's vocabulary is {config.model.vocabulary}"
        )
    model = GPT(config.model, config.activation)
    finished.load_weights(model)
    tokens = generated_tokens(
        model.to(default_device()).eval(),
        prompt,
        flags.tokens,
        context=config.model.context,
        temperature=flags.temperature,
        top_k=flags.top_k,
        seed=flags.seed,
    )
    texts = decoded_stream(tokenizer, tokens)
    first = next(texts)  # before printing anything: this fails if the network's outputs are not finite
    for text in chain((flags.prompt, first), texts):
        say_data(text, end="")
    say()
