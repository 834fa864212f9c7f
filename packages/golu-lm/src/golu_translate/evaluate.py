"""Test metrics of a translator, during training and for finished runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy
import torch
from torch import nn

from golu_core.training import BatchEvaluationFlags, Evaluation, FinishedRun, NonNegativeFloat, RequestError, SampleKey
from golu_core.training.storage import write_text

from .bundles import EvaluatedBundles, padded
from .config import Beams, BeamSearch, TranslationConfig
from .data import PairData, codec_of, load_pairs
from .model import Translator
from .pairs_folder import SUBWORDS_FILE, Cutting
from .parallel_text import Languages, text_lines
from .scores import Scores, bleu_of, scores
from .search import Translation, beam_search
from .subwords import Codec, Numbers, Subwords

SAMPLES_FILE = "samples/translations.txt"
_SUBWORDS_AT_ONCE = 4096
"""Maximum size of a group: its source subwords, including padding, times the beam width."""


@dataclass(frozen=True)
class TranslationEvaluationFlags(BatchEvaluationFlags):
    """Evaluate the final weights of a finished run."""

    source: Path | None = None
    """Your own sentences, one per line, instead of the run's test split. Needs `--reference`."""
    reference: Path | None = None
    """Reference translations, one per line."""
    beam: Beams | None = None
    """Beam width. Defaults to the run's."""
    length_penalty: NonNegativeFloat | None = None
    """Length penalty: log-probabilities are divided by the length to this power. Defaults to the run's."""


class Numbered(NamedTuple):
    """The translations of one sentence.

    Attributes:
        number: Index of the sentence.
        translations: Its translations, best first.
    """

    number: int
    translations: list[Translation]


class SourceGroups:
    """Groups of sentences of similar length, as a data set of groups.

    The groups depend on all sentences together, not on the process that translates a group.

    Args:
        sentences: The subwords of each sentence, including the end-of-sentence symbol.
        beams: Beam width of the search.
    """

    in_memory = True

    def __init__(self, sentences: Sequence[Numbers], beams: int) -> None:
        self.sentences = sentences
        order = sorted(range(len(sentences)), key=lambda number: -len(sentences[number]))
        self.groups: list[list[int]] = []
        while order:
            rows = max(1, _SUBWORDS_AT_ONCE // (beams * len(sentences[order[0]])))
            self.groups.append(order[:rows])
            order = order[rows:]

    def __len__(self) -> int:
        return len(self.groups)

    def __getitems__(self, keys: list[SampleKey]) -> list[tuple[list[int], torch.Tensor]]:
        return [self._batch(self.groups[key.sample]) for key in keys if key.position >= 0]

    def batches(self) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Yield all groups: the indices of the sentences, and their (N, S) int64 subwords."""
        return map(self._batch, self.groups)

    def _batch(self, group: list[int]) -> tuple[list[int], torch.Tensor]:
        return group, padded([self.sentences[number] for number in group])


def translated(
    evaluation: Evaluation[TranslationConfig], model: nn.Module, sentences: Sequence[Numbers], search: BeamSearch
) -> list[list[Translation]]:
    """Translate sentences over all processes; every process returns all translations, in order."""
    assert isinstance(model, Translator)
    model.eval()
    found: list[Numbered] = []
    for groups in evaluation.test_batches(SourceGroups(sentences, search.beam), 1):
        for group, sources in groups:
            with evaluation.processes.autocast():
                results = beam_search(model, sources.to(evaluation.device), search)
            found += [Numbered(number, result) for number, result in zip(group, results, strict=True)]
    return [item.translations for item in sorted(evaluation.processes.all_gather(found), key=lambda item: item.number)]


@torch.no_grad()
def predicted(
    evaluation: Evaluation[TranslationConfig], model: nn.Module, bundles: EvaluatedBundles, at_once: int | None = None
) -> dict[str, float]:
    """Measure how well each subword is predicted from the reference before it, each counted once over all processes.

    Args:
        evaluation: The evaluation's processes, or the training run.
        model: The translator.
        bundles: The bundles to evaluate.
        at_once: Maximum number of bundles per device and batch; the config's value by default.

    Returns:
        `loss`, the mean cross-entropy in nats per subword without label smoothing; `perplexity`; `token_accuracy` in %.
    """
    model.eval()
    device = evaluation.device
    sums = torch.zeros(3, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
    for batch in evaluation.test_batches(bundles, at_once):
        source, previous, targets, places, scale = batch.to(device)
        with evaluation.processes.autocast():
            found = model(source, previous, targets, places, per_token=True)
        columns = torch.stack([found.loss, found.right.float(), torch.ones_like(found.loss)])
        sums += scale * columns.to(sums.dtype).sum(dim=1)
    loss, right, tokens = evaluation.processes.sum(sums).tolist()
    mean = loss / tokens
    return {
        "loss": mean,
        "perplexity": math.exp(mean) if mean < 700 else math.inf,
        "token_accuracy": 100 * right / tokens,
    }


@dataclass(frozen=True)
class Evaluated:
    """The result of an evaluation.

    Attributes:
        metrics: The metrics, in the paper's units.
        signatures: sacreBLEU's signatures.
        examples: Source, reference, and translation of each translated sentence.
    """

    metrics: dict[str, float]
    signatures: dict[str, str]
    examples: list[tuple[str, str, str]]


def evaluate_split(
    evaluation: Evaluation[TranslationConfig],
    model: nn.Module,
    data: PairData,
    split: str,
    *,
    sentences: int | None = None,
    search: BeamSearch | None = None,
    at_once: int | None = None,
) -> Evaluated:
    """Compute the metrics of the validation or test split.

    Args:
        evaluation: The evaluation's processes, or the training run.
        model: The translator.
        data: The recipe's data.
        split: `valid` or `test`.
        sentences: Number of sentences to translate, spread evenly over the split; all by default.
        search: Settings of the beam search; the config's by default.
        at_once: Maximum number of bundles per device and batch; the config's value by default.
    """
    pairs = data.valid if split == "valid" else data.test
    metrics = predicted(evaluation, model, EvaluatedBundles(pairs, evaluation.config.data.bundle_tokens), at_once)
    count = len(pairs.source)
    chosen = numpy.linspace(0, count - 1, min(sentences or count, count)).round().astype(int).tolist()
    sources = [pairs.source.sentence(number) for number in chosen]
    best = [found[0] for found in translated(evaluation, model, sources, search or evaluation.config.search)]
    read, texts, words = ([part[number] for number in chosen] for part in data.references[split])
    found, ours = scored(data.codec, best, texts, words)
    return Evaluated(metrics | found.values, found.signatures, list(zip(read, texts, ours, strict=True)))


def scored(
    codec: Codec, best: Sequence[Translation], references: Sequence[str], reference_words: Sequence[str]
) -> tuple[Scores, list[str]]:
    """Return the scores of translations, and their text."""
    words = [codec.subwords.words(translation.tokens) for translation in best]
    texts = [codec.target.join(line) for line in words]
    return scores(texts, references, words, reference_words, codec.target.language), texts


def evaluate_run(folder: Path, flags: TranslationEvaluationFlags) -> None:
    """Print the metrics of a run folder's final weights on the run's test split, or on files.

    Raises:
        RequestError: There is no finished run, its data are missing or have changed, or the files do not match each
            other.
    """
    if (flags.source is None) != (flags.reference is None):
        raise RequestError("--source and --reference belong together: name both files")
    finished = FinishedRun.at(folder, TranslationConfig)
    config = finished.evaluated_with(flags)
    model = Translator(config.model, config.activation)
    search = config.search.changed(flags.beam, flags.length_penalty)
    if flags.source is not None and flags.reference is not None:
        own = _own_pairs(flags.source, flags.reference)
        bleu_of(run_codec(finished).target.language)  # fail before translating anything that cannot be scored
        finished.load_evaluated_weights(model, config.average)
        _score_own(finished, config, model, own, search)
        return
    data = load_pairs(config)
    finished.check_input("data", data.fingerprint)
    finished.load_evaluated_weights(model, config.average)
    with Evaluation(config, folder) as evaluation:
        model = model.to(evaluation.device)
        found = evaluate_split(evaluation, model, data, "test", search=search, at_once=flags.eval_batch)
        _say_signatures(evaluation, found.signatures)
        finished.print_beside_result(found.metrics, evaluation.processes)


def _score_own(
    finished: FinishedRun[TranslationConfig],
    config: TranslationConfig,
    model: Translator,
    own: tuple[list[str], list[str]],
    search: BeamSearch,
) -> None:
    """Print scores on the user's own sentences; this does not need the run's data."""
    sources, references = own
    codec = run_codec(finished)
    sentences = codec.encoded(sources, config.model.longest)
    with Evaluation(config, finished.folder) as evaluation:
        best = [found[0] for found in translated(evaluation, model.to(evaluation.device), sentences, search)]
        result, _ = scored(codec, best, references, [codec.target.cut(line) for line in references])
        for name, value in result.values.items():
            evaluation.processes.say(f"{name} {value:.6g}")
        _say_signatures(evaluation, result.signatures)


def _say_signatures(evaluation: Evaluation[TranslationConfig], signatures: dict[str, str]) -> None:
    for name, signature in signatures.items():
        evaluation.processes.say(f"{name} signature {signature}")


def run_codec(finished: FinishedRun[TranslationConfig]) -> Codec:
    """Return the codec of a finished run; raise RequestError if its file is missing or damaged."""
    path = finished.check_file(SUBWORDS_FILE)
    content = Subwords(path).content
    return codec_of(path, Languages(*content["languages"]), Cutting(**content["cutting"]))


def _own_pairs(source: Path, reference: Path) -> tuple[list[str], list[str]]:
    sources, references = list(text_lines(source)), list(text_lines(reference))
    if len(sources) != len(references):
        raise RequestError(
            f"{source} has {len(sources):,} lines, and {reference} {len(references):,}: each line must be the "
            f"translation of the other file's same line"
        )
    empty = next(
        (n for n, pair in enumerate(zip(sources, references, strict=True), 1) if not all(map(str.strip, pair))), 0
    )
    if empty or not sources:
        raise RequestError(f"line {empty} of {source} or {reference} is empty" if sources else f"{source} is empty")
    return sources, references


def save_samples(evaluation: Evaluation[TranslationConfig], found: Evaluated) -> None:
    """Write the first sentences of an evaluation with their translations."""
    if evaluation.is_main:
        text = samples_text(found.examples[: evaluation.config.sample_sentences])
        write_text(evaluation.folder / SAMPLES_FILE, text)


def validated_sentences(evaluation: Evaluation[TranslationConfig], data: PairData) -> dict[str, int]:
    """Return how many validation sentences are translated, for result.json, and print it if not all of them are."""
    sentences = len(data.valid.source)
    translated = min(evaluation.config.eval_sentences, sentences)
    if translated < sentences:
        evaluation.processes.say(f"validation scores of translations are of {translated:,} of {sentences:,} sentences")
    return {"translated": translated, "of": sentences}


def samples_text(examples: Sequence[tuple[str, str, str]]) -> str:
    """Format source, reference, and translation of each sentence, one per line; a star marks differences."""
    lines = []
    for source, reference, ours in examples:
        mark = " " if ours == reference else "*"
        lines += [f"source     {source}", f"reference  {reference}", f"ours      {mark}{ours}", ""]
    return "\n".join(lines)
