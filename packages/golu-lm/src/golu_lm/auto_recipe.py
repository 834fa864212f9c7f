"""The recipe `text`: network, context, batch, learning rate, and steps for the user's own text."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from golu_core.training import Cosine, StepWarmup
from golu_core.training.config import Fitted, passes, power_of_two, rounded

from .config import LmConfig
from .data import load_data
from .tokenizers import build_tokenizer


class _Sizes(NamedTuple):
    """A network with its training settings.

    Attributes:
        below: Number of training tokens up to which this network is used.
    """

    below: float
    layers: int
    heads: int
    width: int
    context: int
    dropout: float
    batch: int
    lr: float


# nanoGPT's advice for a CPU, its `train_shakespeare_char`, and a size between that and GPT-2
_SIZES = (
    _Sizes(5e5, layers=4, heads=4, width=128, context=128, dropout=0.1, batch=16, lr=3e-3),
    _Sizes(2e7, layers=6, heads=6, width=384, context=256, dropout=0.2, batch=64, lr=1e-3),
    _Sizes(float("inf"), layers=8, heads=8, width=512, context=512, dropout=0.0, batch=64, lr=1e-3),
)
_FEWEST_STEPS, _EVALUATIONS = 200, 10
_TUNED, _RATE_TUNED = 3, 0.1  # with pretrained weights: a third of the steps, a tenth of the learning rate


def fit_text(recipe: LmConfig, asked: LmConfig, given: frozenset[str]) -> Fitted[LmConfig] | None:
    """Return the recipe for the requested text, or for DATA_DIR/NAME from `golu-lm prepare`; None if there is neither.

    Text is tokenized here, once, as it would be in training.

    Raises:
        RequestError: The text cannot be read, or is too short.
    """
    if asked.data.text is None and not (asked.data_dir / asked.data.name).is_dir():
        return None
    vocabulary = _vocabulary(asked, given)
    shortest = replace(asked.model, context=1, vocabulary=max(vocabulary, asked.model.vocabulary))
    data = load_data(replace(asked, model=shortest, check_data=False))
    train, test = len(data.train), len(data.test)
    sizes = next(sizes for sizes in _SIZES if train < sizes.below)
    tuned = asked.init_from is not None
    longest = power_of_two(min(train, test) - 1, 1, sizes.context)
    context = asked.model.context if "model.context" in given else longest
    batch = asked.batch_size if "batch_size" in given else sizes.batch
    seen = train * passes(train, at_10_000=100, least=1, most=100)
    by_tokens = max(_FEWEST_STEPS, round(seen / (batch * context) / (_TUNED if tuned else 1)))
    steps = asked.steps if "steps" in given else by_tokens
    lr = asked.optim.lr if "optim.lr" in given else rounded(sizes.lr * (_RATE_TUNED if tuned else 1.0))
    fitted = replace(
        recipe,
        model=replace(
            recipe.model,
            layers=sizes.layers,
            heads=sizes.heads,
            width=sizes.width,
            context=context,
            vocabulary=vocabulary,
            dropout=sizes.dropout,
        ),
        optim=replace(recipe.optim, lr=lr),
        schedule=Cosine(final_lr=rounded(lr / 10), per="step", warmup=StepWarmup(steps=max(1, min(100, steps // 10)))),
        steps=steps,
        batch_size=batch,
        micro_batch_size=batch,
        eval_every=max(1, steps // _EVALUATIONS),
        eval_sequences=max(1, min(20 * batch, test // context)),
    )
    return Fitted(fitted, f"{train:,} training and {test:,} test tokens ({asked.data.tokenizer})", None)


def _vocabulary(asked: LmConfig, given: frozenset[str]) -> int:
    """Return the number of embedding rows: the tokenizer's size, rounded up to a multiple of 64 for speed."""
    if asked.data.tokenizer == "none":
        return asked.model.vocabulary
    size = build_tokenizer(asked.data.tokenizer, asked.data.vocab_file).size
    return asked.model.vocabulary if "model.vocabulary" in given else -(-size // 64) * 64
