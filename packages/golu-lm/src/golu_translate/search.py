"""Beam search by fairseq's rules, for many sentences at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from golu_core.training.runs import finite, not_finite

from .config import BeamSearch
from .model import DecoderState, Translator, first_symbols
from .vocabulary import BEGIN, END, PAD

_SHORTEST = 1
"""Minimum length of a translation in subwords, fairseq's `min_len`: no translation is empty."""

# shapes: N sentences, B beams, S source subwords, V vocabulary


class Translation(NamedTuple):
    """A translation that the search found.

    Attributes:
        tokens: The subwords, without the end-of-sentence symbol.
        score: The log-probability in nats divided by the length, including the end-of-sentence symbol, to the power of
            the length penalty.
    """

    tokens: list[int]
    score: float


@torch.no_grad()
def beam_search(model: Translator, sources: Tensor, search: BeamSearch) -> list[list[Translation]]:
    """Return the best translations of each source, as many as the beam width, best first.

    Each step considers the 2 B best continuations of a sentence. Of the first B, those that end become translations;
    the first B that do not end stay in the beam. No hypothesis may end in the first step, so no translation is empty. A
    sentence is done when it has B translations or reaches its maximum length, where all hypotheses end. The result for
    a sentence does not depend on the others.

    Args:
        model: The translator, in evaluation mode.
        sources: (N, S) int64, each sentence with its end-of-sentence symbol, then padding, on the model's device.
        search: Settings of the beam search.

    Raises:
        RunFailure: The network's outputs are not finite.
    """
    beams, device = search.beam, sources.device
    lengths = (sources != PAD).sum(1) + search.longer_by
    limits = lengths.clamp(max=model.sizes.longest).tolist()  # in steps, including the end-of-sentence symbol
    found: list[list[Translation]] = [[] for _ in limits]
    alive = list(range(len(limits)))
    state = model.begin(sources)
    last = first_symbols(len(alive), beams, device)
    written = last.new_empty(len(alive), beams, 0)
    # all beams are equal at first, so only one of them counts
    scores = torch.full((len(alive), beams), -torch.inf, device=device)
    scores[:, 0] = 0.0
    for step in range(1, max(limits, default=0) + 1):
        ends = torch.tensor([limits[sentence] == step for sentence in alive], device=device)
        goes_on = ~ends if step <= _SHORTEST else torch.zeros_like(ends)
        best, place, token = _continuations(model, last, state, scores, ends, goes_on)
        ending = token == END
        divisor = step**search.length_penalty
        listed = [part.tolist() for part in (best[:, :beams] / divisor, ending[:, :beams], place[:, :beams])]
        stays = []
        for row, sentence in enumerate(alive):
            for score, is_end, beam in zip(*(part[row] for part in listed), strict=True):
                if is_end and score > -torch.inf and len(found[sentence]) < beams:
                    found[sentence].append(Translation(written[row, beam].tolist(), score))
            if len(found[sentence]) < beams and limits[sentence] > step:
                stays.append(row)
        if not stays:
            break
        # a stable sort puts unfinished hypotheses first, in the order of their scores
        order = ending.to(torch.uint8).sort(dim=1, stable=True).indices[:, :beams]
        place, last, scores = (part.gather(1, order) for part in (place, token, best.masked_fill(ending, -torch.inf)))
        kept = None
        if len(stays) < len(alive):
            kept = torch.tensor(stays, device=device)
            place, last, scores, written = (part[kept] for part in (place, last, scores, written))
            alive = [alive[row] for row in stays]
        written = torch.cat([written.gather(1, place[..., None].expand_as(written)), last[..., None]], dim=2)
        first = torch.arange(len(alive), device=device) if kept is None else kept
        state.choose((first[:, None] * beams + place).flatten(), kept)
    if not all(found):
        raise not_finite("the scores of all translations")
    return [sorted(translations, key=lambda t: -t.score) for translations in found]


def _continuations(
    model: Translator, last: Tensor, state: DecoderState, scores: Tensor, ends: Tensor, goes_on: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the log-probabilities, beams, and subwords of the best continuations of each sentence, (N, 2 B) each.

    Args:
        model, state: The translator, and the state of the search.
        last: (N, B) int64, the latest subwords.
        scores: (N, B), the log-probabilities so far.
        ends: (N,) bool, True for sentences that must end.
        goes_on: (N,) bool, True for sentences that must not end yet.
    """
    logits = finite(model.step(last, state).float(), "the network's outputs")
    steps = logits.log_softmax(dim=2)
    steps[:, :, [BEGIN, PAD]] = -torch.inf
    other = torch.ones(steps.shape[2], dtype=torch.bool, device=steps.device)
    other[END] = False
    steps = steps.masked_fill(ends[:, None, None] & other, -torch.inf)
    steps = steps.masked_fill(goes_on[:, None, None] & ~other, -torch.inf)
    best, index = (scores[:, :, None] + steps).flatten(1).topk(2 * scores.shape[1], dim=1)
    return best, index // steps.shape[2], index % steps.shape[2]
