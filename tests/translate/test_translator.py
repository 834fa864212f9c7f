"""The Transformer and its parts, beside code and formulas that were not written for it."""

from __future__ import annotations

import math

import numpy
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from golu_core.training.config.optim import LastAverage, averaged_model
from golu_core.training.config.run_config import limited_steps
from golu_core.training.config.schedules import InverseSquareRoot, StepWarmup, learning_rate
from golu_translate.config import BeamSearch, Transformer
from golu_translate.hugging_face import from_fsmt, their_name, to_fsmt
from golu_translate.model import Translator, position_table
from golu_translate.recipes import RECIPES
from golu_translate.vocabulary import END, PAD
from translation_program import EN_DE

SIZES = Transformer(layers=2, heads=4, width=32, feed_forward=64, longest=60, vocabulary=40, dropout=0.0)
SOURCE = torch.tensor([[5, 6, 7, 8, END], [9, 10, END, PAD, PAD], [11, END, PAD, PAD, PAD]])
TARGET = torch.tensor([[12, 13, 14, END], [15, 16, END, PAD], [17, END, PAD, PAD]])
PREVIOUS = torch.tensor([[END, 12, 13, 14], [END, 15, 16, PAD], [END, 17, PAD, PAD]])


def translator(activation: str = "golu", sizes: Transformer = SIZES) -> Translator:
    """One whose norms and biases are not 1 and 0, so that each counts."""
    torch.manual_seed(1)
    model = Translator(sizes, activation)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 0.5, 0.3)
    return model


@pytest.mark.parametrize("activation", ["golu", "relu", "gelu", "swish", "mish"])
def test_logits_and_gradients_are_those_of_hugging_face(activation):
    pytest.importorskip("transformers")
    ours = translator(activation)
    theirs = to_fsmt(ours, activation, EN_DE, BeamSearch()).train()
    counted = TARGET != PAD
    logits = ours(SOURCE, PREVIOUS)
    expected = theirs(
        input_ids=SOURCE, attention_mask=(SOURCE != PAD).long(), decoder_input_ids=PREVIOUS, use_cache=False
    ).logits
    torch.testing.assert_close(logits[counted], expected[counted], rtol=1e-5, atol=1e-5)
    ours(SOURCE, PREVIOUS, TARGET[counted], counted.flatten().nonzero().flatten(), smoothing=0.1).backward()
    F.cross_entropy(expected[counted], TARGET[counted], label_smoothing=0.1, reduction="sum").backward()
    for name, parameter in ours.named_parameters():
        there = theirs.model.get_parameter(their_name(name)).grad
        torch.testing.assert_close(parameter.grad, there, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_weights_go_there_and_back(tmp_path):
    pytest.importorskip("transformers")
    ours = translator()
    to_fsmt(ours, "golu", EN_DE, BeamSearch()).save_pretrained(tmp_path)
    again = Translator(SIZES, "golu")
    from_fsmt(again, str(tmp_path))
    for name, parameter in ours.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name)), name


def test_step_by_step_is_the_whole_text_at_once():
    """Three beams a sentence, each with a text of its own; the beams are then put in another order."""
    model = translator().eval()
    texts = torch.randint(4, 40, (3, 3, 6), generator=torch.Generator().manual_seed(0))
    texts[:, :, 0] = END
    state = model.begin(SOURCE)
    shuffled = torch.tensor([[2, 0, 0], [1, 2, 0], [0, 1, 2]])
    rows = (torch.arange(3)[:, None] * 3 + shuffled).flatten()
    for place in range(6):
        if place == 3:
            state.choose(rows, None)
            texts[:, :, :3] = texts[:, :, :3].gather(1, shuffled[..., None].expand(-1, -1, 3))
        logits = model.step(texts[:, :, place], state)
        whole = model(SOURCE.repeat_interleave(3, 0), texts[:, :, : place + 1].flatten(0, 1))
        torch.testing.assert_close(logits.flatten(0, 1), whole[:, -1], rtol=1e-4, atol=1e-5)
    kept = torch.tensor([0, 2])
    state.choose((kept[:, None] * 3 + torch.arange(3)).flatten(), kept)
    logits = model.step(texts[kept, :, 0], state)
    assert logits.shape == (2, 3, 40)


def test_padding_changes_nothing():
    model = translator().eval()
    alone = [model(SOURCE[n : n + 1, :length], PREVIOUS[n : n + 1, :other])[0] for n, length, other in
             ((0, 5, 4), (1, 3, 3), (2, 2, 2))]  # fmt: skip
    together = model(SOURCE, PREVIOUS)
    for n, logits in enumerate(alone):
        torch.testing.assert_close(together[n, : len(logits)], logits, rtol=1e-5, atol=1e-5)


def test_a_translation_does_not_see_what_comes_after():
    model = translator().eval()
    changed = PREVIOUS.clone()
    changed[0, 3] = 30
    torch.testing.assert_close(model(SOURCE, changed)[0, :3], model(SOURCE, PREVIOUS)[0, :3])


def test_positions_are_fairseqs():
    """sin and cos of position / 10000^(i / (half - 1)), counted from padding's number + 1."""
    table = position_table(50, 16)
    for position in range(50):
        for i in range(8):
            angle = (position + PAD + 1) / 10_000 ** (i / 7)
            assert float(table[position, i]) == pytest.approx(math.sin(angle), abs=1e-5)
            assert float(table[position, 8 + i]) == pytest.approx(math.cos(angle), abs=1e-5)


def smoothed_by_hand(logits: Tensor, targets: Tensor, smoothing: float) -> float:
    """fairseq's label_smoothed_nll_loss: (1 - e) nll + e / V * sum over all classes."""
    total = 0.0
    for row, target in zip(logits.detach().double(), targets.tolist(), strict=True):
        log_probabilities = [float(x) - math.log(sum(math.exp(float(y)) for y in row)) for x in row]
        total += -(1 - smoothing) * log_probabilities[target] - smoothing / len(row) * sum(log_probabilities)
    return total


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_label_smoothing_is_fairseqs(smoothing):
    model = translator()
    counted = TARGET != PAD
    loss = model(SOURCE, PREVIOUS, TARGET[counted], counted.flatten().nonzero().flatten(), smoothing=smoothing)
    expected = smoothed_by_hand(model(SOURCE, PREVIOUS)[counted], TARGET[counted], smoothing)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-6)


def test_parameters_are_the_papers():
    """Counted from the sizes of section 3 and table 3: 61 million with 32,768 subwords, the paper's 65 with 37,000."""
    sizes = RECIPES["transformer-wmt14"].model
    c, f = sizes.width, sizes.feed_forward
    attention, norm, feed_forward = 4 * (c * c + c), 2 * c, 2 * c * f + f + c
    expected = sizes.vocabulary * c + sizes.layers * (3 * attention + 5 * norm + 2 * feed_forward)
    with torch.device("meta"):
        model = Translator(sizes, "relu")
    assert sum(p.numel() for p in model.parameters()) == expected == RECIPES["transformer-wmt14"].paper.size
    assert 60e6 < expected < 62e6 and 62e6 < expected + (37_000 - sizes.vocabulary) * c < 66e6


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_builds_a_model_of_its_stated_size(recipe):
    config = RECIPES[recipe]
    with torch.device("meta"):
        model = Translator(config.model, "golu")
    assert sum(p.numel() for p in model.parameters()) == config.paper.size


def test_initial_weights_are_fairseqs():
    model = Translator(Transformer(layers=1, width=256, feed_forward=1024, vocabulary=5000), "relu")
    assert float(model.embedding.weight[4:].std()) == pytest.approx(256**-0.5, rel=0.01)
    assert not model.embedding.weight[PAD].any()
    for name, parameter in model.named_parameters():
        if name.endswith("proj.weight") or (".fc" in name and parameter.ndim == 2):
            rows, columns = parameter.shape
            bound = math.sqrt(6 / (rows + columns))
            if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")):
                bound /= math.sqrt(2)
            assert float(parameter.abs().max()) == pytest.approx(bound, rel=0.01), name
        elif name.endswith("bias"):
            assert not parameter.any(), name


def fairseq_rates(peak: float, warmup: int, initial: float, steps: int) -> list[float]:
    """`inverse_square_root_schedule.py`, by its text: `step_update(n)` gives the rate of update n + 1."""
    step, decay = (peak - initial) / warmup, peak * warmup**0.5
    return [initial + n * step if n < warmup else decay * n**-0.5 for n in range(steps)]


def test_rates_are_fairseqs():
    schedule = RECIPES["transformer-wmt14"].schedule
    assert isinstance(schedule, InverseSquareRoot)
    expected = fairseq_rates(7e-4, 4000, 1e-7, 100_000)
    for step in (0, 1, 2, 100, 3999, 4000, 4001, 16_000, 99_999):
        assert learning_rate(schedule, 7e-4, step, 5000, 20) == pytest.approx(expected[step], rel=1e-9), step
    assert learning_rate(schedule, 7e-4, 15_999, 5000, 20) == pytest.approx(3.5e-4, rel=1e-3)
    short = InverseSquareRoot(warmup=StepWarmup(steps=1))
    assert learning_rate(short, 1.0, 4, 10, 1) == 0.5


@pytest.mark.parametrize(("total", "count", "every"), [(10, 3, 2), (11, 5, 4), (4, 5, 10), (7, 2, 1)])
def test_the_average_is_of_the_last_weights(total, count, every):
    model = torch.nn.Linear(2, 1)
    settings = LastAverage(count=count, every=every)
    average, seen = averaged_model(model, settings), []
    for step in range(1, total + 1):
        with torch.no_grad():
            model.weight.fill_(step)
        if settings.moves_after(step, total):
            average.update_parameters(model)
            seen.append(step)
    expected = [step for step in range(total - (count - 1) * every, total + 1, every) if step > 0]
    assert seen == expected
    assert float(average.module.weight[0, 0]) == pytest.approx(numpy.mean(expected))


def test_the_recipe_averages_its_last_five_checkpoints():
    recipe = RECIPES["transformer-wmt14"]
    steps = [n for n in range(1, 100_001) if recipe.average.moves_after(n, limited_steps(recipe, recipe.steps))]
    assert steps == [94_000, 95_500, 97_000, 98_500, 100_000]
