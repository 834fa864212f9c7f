"""Beam search, beside a slow one that reads everything anew, and beside all translations that there are."""

from __future__ import annotations

import itertools

import pytest
import torch

from golu_core.training.messages.errors import RunFailure
from golu_translate.config import BeamSearch, Transformer
from golu_translate.model import Translator
from golu_translate.search import Translation, beam_search
from golu_translate.vocabulary import BEGIN, END, PAD

VOCABULARY = 9
SIZES = Transformer(layers=1, heads=2, width=16, feed_forward=32, longest=12, vocabulary=VOCABULARY, dropout=0.0)


@pytest.fixture(params=range(4))
def model(request) -> Translator:
    torch.manual_seed(request.param)
    model = Translator(SIZES, "golu").eval()
    with torch.no_grad():
        model.embedding.weight.mul_(4)  # so that some continuations are much better than others
    return model


def next_scores(model: Translator, source: list[int], text: list[int]) -> list[float]:
    """Log-probabilities of what follows a text, with everything read anew."""
    logits = model(torch.tensor([source]), torch.tensor([[END, *text]]))[0, -1]
    logits[[BEGIN, PAD]] = -torch.inf
    normal = model(torch.tensor([source]), torch.tensor([[END, *text]]))[0, -1].log_softmax(0)
    return [float(normal[n]) if logits[n] > -torch.inf else -float("inf") for n in range(VOCABULARY)]


def slow_search(model: Translator, source: list[int], search: BeamSearch) -> list[Translation]:
    """fairseq's rules for one sentence, a list at a time."""
    limit = min(len(source) + search.longer_by, SIZES.longest)
    beams: list[tuple[list[int], float]] = [([], 0.0)]
    found: list[Translation] = []
    for step in range(1, limit + 1):
        grown = []
        for text, score in beams:
            for token, more in enumerate(next_scores(model, source, text)):
                if more > -float("inf") and (token == END if step == limit else token != END or text):
                    grown.append((text, token, score + more))
        best = sorted(grown, key=lambda g: -g[2])[: 2 * search.beam]
        for text, token, score in best[: search.beam]:
            if token == END and len(found) < search.beam:
                found.append(Translation(text, score / step**search.length_penalty))
        if len(found) == search.beam:
            break
        beams = [([*text, token], score) for text, token, score in best if token != END][: search.beam]
    return sorted(found, key=lambda t: -t.score)


SOURCES = [[4, 5, 6, 7, END], [8, 4, END], [5, END], [6, 6, 6, 4, 5, 7, END]]


def together(sources: list[list[int]]) -> torch.Tensor:
    longest = max(map(len, sources))
    return torch.tensor([[*source, *[PAD] * (longest - len(source))] for source in sources])


@pytest.mark.parametrize("search", [
    BeamSearch(beam=4, length_penalty=0.6, longer_by=3), BeamSearch(beam=1, longer_by=4),
    BeamSearch(beam=3, length_penalty=0.0, longer_by=0), BeamSearch(beam=2, length_penalty=2.0, longer_by=50),
])  # fmt: skip
def test_it_is_the_slow_search_for_each_sentence(model, search):
    found = beam_search(model, together(SOURCES), search)
    for source, translations in zip(SOURCES, found, strict=True):
        expected = slow_search(model, source, search)
        assert [t.tokens for t in translations] == [t.tokens for t in expected]
        assert [t.score for t in translations] == pytest.approx([t.score for t in expected], abs=1e-4)


def test_sentences_do_not_change_each_other(model):
    search = BeamSearch(beam=3, longer_by=4)
    whole = beam_search(model, together(SOURCES), search)
    for source, translations in zip(SOURCES, whole, strict=True):
        ((alone),) = beam_search(model, torch.tensor([source]), search)
        assert [t.tokens for t in alone] == [t.tokens for t in translations]


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0])
def test_with_beams_for_everything_it_finds_the_best_of_all(model, penalty):
    """One or two subwords of six, 42 texts, each scored by itself: fairseq does not let a translation be empty."""
    source = [4, 5, END]
    words = [token for token in range(VOCABULARY) if token not in (BEGIN, PAD, END)]
    scores = {}
    for length in range(1, 3):
        for text in itertools.product(words, repeat=length):
            parts = [next_scores(model, source, list(text[:n]))[token] for n, token in enumerate((*text, END))]
            scores[text] = sum(parts) / (length + 1) ** penalty
    best = sorted(scores, key=lambda text: -scores[text])[:10]
    (found,) = beam_search(model, torch.tensor([source]), BeamSearch(beam=300, length_penalty=penalty, longer_by=0))
    assert [tuple(t.tokens) for t in found[:10]] == best
    assert len(found) == len(scores)


def test_no_translation_is_empty():
    """Where the end is by far the most probable subword, and whatever the length."""
    torch.manual_seed(0)
    model = Translator(SIZES, "golu").eval()
    with torch.no_grad():
        model.embedding.weight.zero_()
        model.embedding.weight[END] = 1.0
        model.embedding.weight[END, :8] = -1.0
    for search in (BeamSearch(beam=1, longer_by=0), BeamSearch(beam=4, longer_by=3), BeamSearch(beam=60, longer_by=1)):
        for translations in beam_search(model, together(SOURCES), search):
            assert translations and all(translation.tokens for translation in translations)


def test_one_beam_takes_the_most_probable_subword(model):
    (found,) = beam_search(model, torch.tensor([[4, 5, 6, END]]), BeamSearch(beam=1, longer_by=8))
    text: list[int] = []
    while len(text) < 11:
        scores = next_scores(model, [4, 5, 6, END], text)
        scores[END] = scores[END] if text else -float("inf")
        token = max(range(VOCABULARY), key=scores.__getitem__)
        if token == END:
            break
        text.append(token)
    assert found[0].tokens == text


def test_a_network_of_nan_is_a_message(model):
    with torch.no_grad():
        model.embedding.weight.fill_(torch.nan)
    with pytest.raises(RunFailure, match="not finite"):
        beam_search(model, together(SOURCES), BeamSearch())


def test_translations_end_at_the_models_longest(model):
    (found,) = beam_search(model, torch.tensor([[4, 5, 6, END]]), BeamSearch(beam=2, longer_by=1000))
    assert all(len(t.tokens) < SIZES.longest for t in found)
