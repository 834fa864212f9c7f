"""Generate text with a trained model, one token at a time."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor, nn

from golu_core.training import FinishedRun, NonNegativeFloat, PositiveInt, Purpose, RequestError, Seed
from golu_core.training.config import Range
from golu_core.training.data import generator
from golu_core.training.distributed import default_device
from golu_core.training.messages import say, say_data
from golu_core.training.runs import finite
from golu_core.training.storage import read_text
from golu_core.training.tasks import parsed_run_flags

from .config import LmConfig
from .model import GPT, KeyValueCache
from .tokenizers import Tokenizer, build_tokenizer, decoded_stream, encode_prompt

_BETWEEN = f"\n\n{'-' * 80}\n\n"


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
    top_p: float | None = None,
    end: int | None = None,
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
        top_p: Draw only from the most probable tokens that together have this probability (Holtzman et al., ICLR 2020).
        end: The token at which the text ends, which is not yielded; by default it does not end early.
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
        token = _drawn(logits[0, -1].float().cpu(), temperature, top_k, top_p, draws)
        if token == end:
            return
        tokens.append(token)
        yield token


def _drawn(logits: Tensor, temperature: float, top_k: int | None, top_p: float | None, draws: torch.Generator) -> int:
    finite(logits, "the network's outputs")
    if temperature == 0:
        return int(logits.argmax())
    return int(torch.multinomial(probabilities(logits, temperature, top_k, top_p), 1, generator=draws))


def probabilities(logits: Tensor, temperature: float, top_k: int | None, top_p: float | None) -> Tensor:
    """Return the probabilities with which a token is drawn; see `generated_tokens` for the last three arguments.

    Args:
        logits: (N,) float32, of all tokens.

    Returns:
        The probabilities, (N,) float32.
    """
    if top_k is not None:
        lowest = logits.topk(min(top_k, len(logits))).values[-1]
        logits = logits.masked_fill(logits < lowest, -torch.inf)
    found = (logits / temperature).softmax(dim=0)
    if top_p is None:
        return found
    ordered, places = found.sort(descending=True)
    before = ordered.cumsum(dim=0) - ordered
    found[places[before >= top_p]] = 0.0
    return found / found.sum()


def until_stop(texts: Iterable[str], stops: Sequence[str]) -> Iterator[str]:
    """Yield the pieces of a text up to the first of some strings to be complete, wherever its pieces end."""
    held, longest = "", max(map(len, stops), default=0)
    for text in texts:
        for letter in text:
            held += letter
            found = [len(stop) for stop in stops if held.endswith(stop)]
            if found:
                yield held[: -max(found)]
                return
        safe = max(0, len(held) - max(0, longest - 1))
        yield held[:safe]
        held = held[safe:]
    yield held


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
    return _BETWEEN.join(parts) + "\n"


@dataclass(frozen=True)
class GenerateFlags:
    """Generate text with a finished run."""

    prompt: str = ""
    """Text to continue. By default, generation starts a new document."""
    prompt_file: Path | None = None
    """File with the text to continue; `-` is standard input. A newline at its end is left out."""
    samples: PositiveInt = 1
    """Number of texts to generate, with the seeds from `--seed` on and a line of dashes between them."""
    tokens: PositiveInt = 500
    """Maximum number of tokens to generate."""
    stop: tuple[str, ...] = ()
    """End the text before the first of these strings."""
    stop_at_end: bool = True
    """End the text where the model ends the document; otherwise a new one follows."""
    temperature: NonNegativeFloat = 0.8
    """Sampling temperature: lower is more predictable, higher is more varied. 0 is greedy decoding."""
    top_k: PositiveInt | None = 200
    """Sample only from the K most likely tokens (top-k sampling)."""
    top_p: Annotated[float, Range(gt=0, le=1)] | None = None
    """Sample only from the most likely tokens that together have this probability (nucleus sampling)."""
    seed: Seed = 0
    """Seed for sampling."""
    vocab_file: Path | None = None
    """GPT-2's vocabulary, where tiktoken cannot download it; by default that of the run."""


def generate_command(arguments: Sequence[str]) -> None:
    """Run `golu-lm generate RUN_DIR [flags]`, which prints the text while it is generated."""
    folder, flags = parsed_run_flags(GenerateFlags, arguments, "golu-lm generate")
    if "" in flags.stop:
        raise RequestError("--stop is an empty string, which is in every text")
    finished = FinishedRun.at(folder, LmConfig)
    config = finished.config
    tokenizer = build_tokenizer(config.data.tokenizer, flags.vocab_file or config.data.vocab_file)
    text = _prompt(flags)
    prompt = encode_prompt(tokenizer, text) or [tokenizer.end_of_text]
    outside = [token for token in prompt if token >= config.model.vocabulary]
    if outside:
        raise RequestError(
            f"the prompt has token {outside[0]}, but the model's vocabulary is {config.model.vocabulary}"
        )
    model = GPT(config.model, config.activation)
    finished.load_weights(model)
    model.to(default_device()).eval()
    for number in range(flags.samples):
        if number:
            say_data(_BETWEEN, end="")
        tokens = generated_tokens(
            model,
            prompt,
            flags.tokens,
            context=config.model.context,
            temperature=flags.temperature,
            top_k=flags.top_k,
            seed=flags.seed + number,
            top_p=flags.top_p,
            end=tokenizer.end_of_text if flags.stop_at_end else None,
        )
        pieces = until_stop(decoded_stream(tokenizer, tokens), flags.stop)
        first = next(pieces, "")  # before printing anything: this fails if the network's outputs are not finite
        for piece in chain((text, first), pieces):
            say_data(piece, end="")
        say()


def _prompt(flags: GenerateFlags) -> str:
    if flags.prompt_file is None:
        return flags.prompt
    if flags.prompt:
        raise RequestError("--prompt and --prompt-file cannot be combined")
    text = sys.stdin.read() if flags.prompt_file == Path("-") else read_text(flags.prompt_file)
    return text.removesuffix("\n")
