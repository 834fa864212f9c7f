"""The recipe of a language model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from golu_core.training import (
    Fraction,
    NonNegativeInt,
    PositiveInt,
    RequestError,
    RunConfig,
    added_field,
    runtime_field,
)
from golu_core.training.config import FolderName, RunLength, check_steps_only

TokenizerName = Literal["gpt2", "bytes", "none"]


@dataclass(frozen=True)
class Model:
    """A GPT-2 (Radford et al., 2019) in nanoGPT's form.

    Attributes:
        layers: Transformer blocks.
        heads: Attention heads per block.
        width: Width of the residual stream.
        context: Context length in tokens.
        vocabulary: Vocabulary size, that is, rows of the embedding. Can be larger than the tokenizer's, because round
            sizes are faster.
        dropout: Dropout rate in embeddings, attention, and residual branches.
        bias: Use biases in linear layers and layer norms.
        mlp: `plain`, or `gated`: down(act(gate(x)) * up(x)) (Shazeer, "GLU Variants Improve Transformer", 2020), two
            thirds as wide, so that there are as many parameters.
    """

    layers: PositiveInt = 6
    heads: PositiveInt = 6
    width: PositiveInt = 384
    context: PositiveInt = 1024
    vocabulary: PositiveInt = 50_304
    dropout: Fraction = 0.2
    bias: bool = False
    mlp: Literal["plain", "gated"] = added_field("plain")

    @property
    def hidden(self) -> int:
        """Width of the MLPs' hidden layer: 4 times the width, or 8/3 times, rounded to a multiple of 8, with a gate."""
        return 4 * self.width if self.mlp == "plain" else 8 * round(self.width / 3)

    def check(self, flag: str) -> None:
        if self.width % self.heads:
            raise RequestError(f"{flag}.width {self.width} is not a multiple of {flag}.heads {self.heads}")


@dataclass(frozen=True)
class Data:
    """Where tokens come from.

    Attributes:
        name: Folder in --data-dir with `train.bin` and `test.bin`, as `golu-lm prepare` or nanoGPT writes them; also
            the data set's name in results.
        text: Your own text, JSON, CSV, or parquet file, compressed or not, or a folder of them, used instead of
            `name`. It is tokenized on the first run.
        column: Column that holds the text, if `text` is a JSON, CSV, or parquet file.
        split_on_endoftext: Split a text file into documents at `<|endoftext|>`; otherwise it is text like any other.
        dtype: Type of the numbers in token files without meta.json; by default nanoGPT's uint16.
        tokenizer: `gpt2` byte pairs, `bytes`, or `none` if the files were tokenized by something else.
        vocab_file: GPT-2's vocabulary where tiktoken cannot download it: a `.tiktoken` file, or a folder with
            `vocab.bpe` and `encoder.json`.
        train_documents: Number of training documents in the published data set, 0 if unknown. If yours differs, the
            run prints a note and records it in result.json.
        test_documents: Number of test documents in the published data set, 0 if unknown.
    """

    FORMER_NAMES: ClassVar[Mapping[str, str]] = {"split_on_endoftext": "separated"}

    name: FolderName = runtime_field("tinystories")
    text: Path | None = runtime_field(None)
    column: str = runtime_field("text")
    split_on_endoftext: bool = runtime_field(True)
    dtype: Literal["uint8", "uint16", "uint32"] | None = runtime_field(None)
    tokenizer: TokenizerName = runtime_field("gpt2")
    vocab_file: Path | None = runtime_field(None)
    train_documents: NonNegativeInt = runtime_field(0)
    test_documents: NonNegativeInt = runtime_field(0)

    def check(self, flag: str) -> None:
        if self.dtype is not None and (self.text is not None or self.name == "pydocs"):
            raise RequestError(f"{flag}.dtype is for token files without meta.json, and text is tokenized here")


@dataclass(frozen=True, kw_only=True)
class LmConfig(RunConfig):
    """A golu-lm recipe: the full configuration of a run. Its length is in steps, not epochs."""

    model: Model = Model()
    data: Data = Data()
    steps: PositiveInt = 10_000
    """Optimizer steps of the run."""
    eval_every: PositiveInt = 250
    """Steps between evaluations, each followed by a checkpoint."""
    eval_sequences: PositiveInt = 3200
    """Random test sequences per evaluation. After the last step, the whole test split is also evaluated."""
    sample_tokens: PositiveInt = runtime_field(500)
    """Length of the texts generated at the end."""

    @property
    def default_activation(self) -> str:
        return "gelu"

    @property
    def primary_metric(self) -> str:
        return "perplexity"

    @property
    def units_per_sample(self) -> int:
        return self.model.context

    def length(self, steps_per_epoch: int) -> RunLength:
        return RunLength(self.steps, 1)

    def check(self, flag: str) -> None:
        check_steps_only(self.schedule)
