"""The recipe of a translator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from golu_core.training import (
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    RequestError,
    RunConfig,
    runtime_field,
)
from golu_core.training.config import FolderName, LastAverage, Range, RunLength, check_steps_only

Beams = Annotated[int, Range(ge=1, le=1000)]


@dataclass(frozen=True)
class Transformer:
    """The Transformer with a layer norm after each residual sum (Vaswani et al., 2017, section 3), in fairseq's form.

    Attributes:
        layers: Layers of the encoder, and as many of the decoder.
        heads: Attention heads.
        width: Width of the residual stream.
        feed_forward: Width of the hidden layer between two attentions, where the activation is.
        longest: Maximum sentence length in subwords, including the end-of-sentence symbol.
        vocabulary: Vocabulary size. Encoder, decoder, and output layer share one embedding.
        dropout: Dropout rate in embeddings and residual branches.
    """

    layers: PositiveInt = 6
    heads: PositiveInt = 8
    width: PositiveInt = 512
    feed_forward: PositiveInt = 2048
    longest: PositiveInt = runtime_field(1024)
    vocabulary: PositiveInt = 32_768
    dropout: Fraction = 0.1

    def check(self, flag: str) -> None:
        if self.width % self.heads:
            raise RequestError(f"{flag}.width {self.width} is not a multiple of {flag}.heads {self.heads}")
        if self.width % 2 or self.width < 4:
            raise RequestError(f"{flag}.width must be even and at least 4, one half for sines and one for cosines")


@dataclass(frozen=True)
class Pairs:
    """The sentence pairs, and how they are grouped into bundles.

    Attributes:
        name: Folder in --data-dir that `golu-translate prepare` wrote; also the data set's name in results.
        bundle_tokens: Maximum number of subwords per bundle on either side, including padding. A bundle holds pairs of
            similar length, and --batch-size counts bundles.
        train_pairs: Number of training pairs in the published data set, 0 if unknown. If yours differs, the run prints
            a note and records it in result.json.
        test_pairs: Number of test pairs in the published data set, 0 if unknown.
    """

    name: FolderName = runtime_field("wmt14-en-de")
    bundle_tokens: PositiveInt = 4096
    train_pairs: NonNegativeInt = runtime_field(0)
    test_pairs: NonNegativeInt = runtime_field(0)


@dataclass(frozen=True)
class BeamSearch:
    """Beam search (Vaswani et al., 2017, section 6.1), with fairseq's rules.

    Attributes:
        beam: Beam width.
        length_penalty: Length penalty: log-probabilities are divided by the translation's length to this power.
        longer_by: Maximum number of subwords by which a translation may exceed the length of its source.
    """

    beam: Beams = 4
    length_penalty: NonNegativeFloat = 0.6
    longer_by: NonNegativeInt = 50

    def changed(self, beam: int | None, length_penalty: float | None) -> BeamSearch:
        """Return a copy with every value that is not None replaced."""
        return BeamSearch(
            self.beam if beam is None else beam,
            self.length_penalty if length_penalty is None else length_penalty,
            self.longer_by,
        )


@dataclass(frozen=True, kw_only=True)
class TranslationConfig(RunConfig):
    """A golu-translate recipe: the full configuration of a run. Its length is in steps, not epochs."""

    model: Transformer = Transformer()
    data: Pairs = Pairs()
    search: BeamSearch = BeamSearch()
    average: LastAverage | None = None
    label_smoothing: Fraction = 0.1
    """Label smoothing: the share of probability spread evenly over all subwords."""
    steps: PositiveInt = 100_000
    """Optimizer steps of the run."""
    eval_every: PositiveInt = 5_000
    """Steps between evaluations on the validation split, each followed by a checkpoint."""
    eval_sentences: PositiveInt = 500
    """Number of validation sentences to translate in each evaluation. After the last step, the whole test split is
    translated."""
    sample_sentences: PositiveInt = runtime_field(200)
    """Number of sentences in samples/translations.txt: from the validation split during training, from the test split
    at the end."""

    @property
    def default_activation(self) -> str:
        return "relu"

    @property
    def primary_metric(self) -> str:
        return "bleu"

    def length(self, steps_per_epoch: int) -> RunLength:
        return RunLength(self.steps, 1)

    def check(self, flag: str) -> None:
        check_steps_only(self.schedule)
