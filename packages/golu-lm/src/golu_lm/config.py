"""What a golu-lm recipe consists of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from golu_core.training.config import RunConfig, placement
from golu_core.training.optim import Optim
from golu_core.training.schedules import Schedule

TokenizerName = Literal["gpt2", "bytes", "none"]


@dataclass(frozen=True)
class Model:
    """A GPT-2 (Radford et al., 2019) in nanoGPT's form.

    Attributes:
        layers, heads, width: of the transformer; the MLP is four times as wide.
        context: tokens that the model sees at once.
        vocabulary: rows of the embedding; more than the tokenizer has where a round number is faster.
        dropout: of embeddings, attention and residual branches.
        bias: whether linear layers and layer norms have biases.
    """

    layers: int = 6
    heads: int = 6
    width: int = 384
    context: int = 1024
    vocabulary: int = 50_304
    dropout: float = 0.2
    bias: bool = False


@dataclass(frozen=True)
class Data:
    """Where tokens come from.

    Attributes:
        name: folder below --data-dir with `train.bin` and `test.bin`, as `golu-lm prepare` or nanoGPT writes them; also
            the data set's name in results.
        text: a text file of your own, tokenised at the first run; instead of `name`.
        tokenizer: `gpt2` byte pairs, `bytes`, or `none` if the files were tokenised by something else.
        vocab_file: GPT-2's vocabulary where tiktoken cannot download it: a `.tiktoken` file, or a folder with
            `vocab.bpe` and `encoder.json`.
        train_documents, test_documents: as published; a difference is said and noted in result.json. 0 if not known.
    """

    name: str = "tinystories"
    text: Path | None = None
    tokenizer: TokenizerName = "gpt2"
    vocab_file: Path | None = placement(None)
    train_documents: int = 0
    test_documents: int = 0


@dataclass(frozen=True, kw_only=True)
class LmConfig(RunConfig):
    """A golu-lm recipe: everything that a run of it needs. The schedule's times are in steps, not epochs."""

    model: Model = Model()
    data: Data = Data()
    optim: Optim = Optim()
    schedule: Schedule = Schedule()
    steps: int = 10_000
    """Optimizer steps; the cosine ends with them."""
    batch_size: int = 640
    """Sequences of one optimizer step, over all processes."""
    max_device_batch: int | None = placement(16)
    """Sequences that a device takes at once; a larger share of the batch is accumulated."""
    eval_every: int = 250
    """Steps between evaluations, each followed by a checkpoint."""
    eval_sequences: int = 3200
    """Random sequences of the test split in each of these evaluations; at the end the whole split is evaluated too."""
    eval_batch: int = placement(16)
    """Sequences that a device takes at once in evaluation."""
    clip: float | None = 1.0
    """Largest norm of the gradient."""
    init_from: str | None = None
    """Start from Hugging Face GPT-2 weights: a local folder or a name on the hub."""
    sample_tokens: int = placement(500)
    """Length of the texts generated at the end."""

    @property
    def own_activation(self) -> str:
        return "gelu"
