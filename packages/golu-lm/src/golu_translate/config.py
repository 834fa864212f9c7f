"""What a recipe of a translator consists of."""

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
        longest: Most subwords of a sentence, its end among them.
        vocabulary: Rows of the embedding that both halves and the output layer share.
        dropout: Dropout of embeddings and of each residual branch.
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
    """Which pairs of sentences, and how they are put together.

    Attributes:
        name: Folder in --data-dir that `golu-translate prepare` wrote; also the data set's name in results.
        bundle_tokens: Most subwords of a bundle on either side, padding included. A bundle is pairs of similar length,
            and --batch-size counts bundles.
        train_pairs: Training pairs of the published data, 0 if not known; a difference is said and noted in
            result.json.
        test_pairs: Test pairs of the published data, 0 if not known.
    """

    name: FolderName = runtime_field("wmt14-en-de")
    bundle_tokens: PositiveInt = 4096
    train_pairs: NonNegativeInt = runtime_field(0)
    test_pairs: NonNegativeInt = runtime_field(0)


@dataclass(frozen=True)
class BeamSearch:
    """How a sentence is translated (Vaswani et al., 2017, section 6.1), by fairseq's rules.

    Attributes:
        beam: Translations that are followed at once.
        length_penalty: A translation's log-probability is divided by its length to this power.
        longer_by: Most subwords by which a translation may be longer than its source.
    """

    beam: Beams = 4
    length_penalty: NonNegativeFloat = 0.6
    longer_by: NonNegativeInt = 50

    def changed(self, beam: int | None, length_penalty: float | None) -> BeamSearch:
        """The same with what is not None."""
        return BeamSearch(
            self.beam if beam is None else beam,
            self.length_penalty if length_penalty is None else length_penalty,
            self.longer_by,
        )


@dataclass(frozen=True, kw_only=True)
class TranslationConfig(RunConfig):
    """A recipe of a translator: everything that a run of it needs. It has steps and no epochs."""

    model: Transformer = Transformer()
    data: Pairs = Pairs()
    search: BeamSearch = BeamSearch()
    average: LastAverage | None = None
    label_smoothing: Fraction = 0.1
    """Share of the probability that is spread over all subwords."""
    steps: PositiveInt = 100_000
    """Optimizer steps of the run."""
    eval_every: PositiveInt = 5_000
    """Steps between evaluations on the validation split, each followed by a checkpoint."""
    eval_sentences: PositiveInt = 500
    """Validation sentences that are translated in each evaluation; at the end the whole test split is."""
    sample_sentences: PositiveInt = runtime_field(200)
    """Sentences that samples/translations.txt shows: of the validation split in training, at the end of the test's."""

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
