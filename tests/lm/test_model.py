"""The model against Hugging Face's GPT-2, its loss against torch's, its cache against itself without one."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from golu_core import register_with_transformers
from golu_core.training.config.optim import AdamW, build_optimizer
from golu_core.training.config.schedules import Cosine, StepWarmup, learning_rate
from golu_core.training.loop import token_losses as loss_module
from golu_core.training.loop.token_losses import mean_cross_entropy, token_scores
from golu_core.training.messages.errors import RequestError
from golu_lm.config import Model
from golu_lm.generate import generated_tokens, probabilities, until_stop
from golu_lm.hugging_face import copy_from_hugging_face, load_hugging_face, to_hugging_face
from golu_lm.model import GPT, KeyValueCache, flops_per_token
from golu_lm.recipes import RECIPES

SMALL = Model(layers=3, heads=4, width=32, context=24, vocabulary=97, dropout=0.0, bias=True)


def small(bias: bool = True, activation: str = "gelu") -> GPT:
    torch.manual_seed(0)
    model = GPT(dataclasses.replace(SMALL, bias=bias), activation)
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms as in a trained model
            parameter += 0.05 * torch.randn_like(parameter)
    return model.eval()


@pytest.mark.parametrize(
    ("activation", "bias"), [("gelu", True), ("gelu_tanh", True), ("golu", True), ("swish", False)]
)
def test_logits_equal_hugging_faces(activation, bias):
    ours = small(bias, activation)
    theirs = to_hugging_face(ours, activation)
    tokens = torch.randint(97, (2, 24))
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), theirs(tokens).logits, rtol=1e-5, atol=1e-5)


def test_weights_come_back_from_hugging_face(tmp_path):
    ours = small()
    to_hugging_face(ours, "gelu").save_pretrained(tmp_path)
    again = GPT(SMALL, "gelu")
    load_hugging_face(again, str(tmp_path))
    for name, parameter in again.named_parameters():
        assert torch.equal(parameter, ours.get_parameter(name)), name


def test_a_golu_model_is_loaded_by_transformers(tmp_path):
    from transformers import GPT2LMHeadModel

    ours = small(activation="golu")
    to_hugging_face(ours, "golu").save_pretrained(tmp_path)
    register_with_transformers()
    theirs = GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    assert "GoLU" in repr(theirs)
    tokens = torch.randint(97, (1, 9))
    torch.testing.assert_close(ours(tokens), theirs(tokens).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"layers": 4}, "layers"), ({"layers": 2}, "layers"), ({"width": 64}, "wte.weight of"), ({"bias": False}, "bias")],
)
def test_weights_of_another_shape_are_refused(change, message):
    theirs = to_hugging_face(small(), "gelu")
    with pytest.raises(RequestError, match=message):
        copy_from_hugging_face(GPT(dataclasses.replace(SMALL, **change), "gelu"), theirs)


def test_the_first_50_losses_equal_those_of_hugging_faces_gpt2():
    ours = GPT(SMALL, "gelu")
    theirs = to_hugging_face(ours, "gelu").train()
    starts = torch.randint(97, (50, 4, 1), generator=torch.Generator().manual_seed(1))
    batches = (starts + 5 * torch.arange(24)) % 97
    settings = {"lr": 3e-3, "betas": (0.9, 0.95), "weight_decay": 0.1}
    optimizer = build_optimizer(ours, AdamW(decay="matrices", **settings), torch.device("cpu"))
    matrices, vectors = ([p for p in theirs.parameters() if (p.ndim > 1) == wanted] for wanted in (True, False))
    bare = torch.optim.AdamW([{"params": matrices}, {"params": vectors, "weight_decay": 0.0}], **settings)
    for number, tokens in enumerate(batches):
        loss = ours(tokens[:, :-1], tokens[:, 1:])
        expected = theirs(tokens, labels=tokens).loss
        assert loss.item() == pytest.approx(expected.item(), rel=1e-4), f"step {number}"
        for step_loss, network, stepper in ((loss, ours, optimizer), (expected, theirs, bare)):
            stepper.zero_grad()
            step_loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            stepper.step()
    assert loss.item() < 0.6 * torch.tensor(97.0).log().item()


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_builds_a_model_of_its_stated_size(recipe):
    config = RECIPES[recipe]
    with torch.device("meta"):
        model = GPT(config.model, "golu")
    assert sum(p.numel() for p in model.parameters()) == config.paper.size


def test_sizes_are_the_published_ones():
    per_layer = 12 * 768 * 768 + 2 * 768  # attention 4, MLP 8; two norms without bias
    assert RECIPES["gpt2s-openwebtext"].paper.size == 12 * per_layer + 768 + (50_304 + 1024) * 768
    per_layer = 12 * 384 * 384 + 2 * 384
    assert RECIPES["babygpt-tinystories"].paper.size == 6 * per_layer + 384 + (50_304 + 1024) * 384


def test_initial_weights_have_the_published_deviations():
    torch.manual_seed(0)
    model = GPT(Model(layers=8, heads=4, width=256, context=64, vocabulary=512, bias=True), "golu")
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            expected = 0.02 / 4 if name.endswith("c_proj.weight") else 0.02
            assert parameter.std().item() == pytest.approx(expected, rel=0.03), name
        else:
            assert torch.equal(parameter, torch.zeros_like(parameter) if "bias" in name else torch.ones_like(parameter))


def test_flops_are_those_of_nanogpt():
    config = RECIPES["gpt2s-openwebtext"].model
    with torch.device("meta"):
        model = GPT(config, "golu")
    parameters = 124_373_760 - 1024 * 768
    assert flops_per_token(model) == 6 * parameters + 12 * 12 * 12 * 64 * 1024


# ------------------------------------------------------------------------------------------------------------ the loss


@pytest.mark.parametrize("at_once", [1 << 25, 97 * 7])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_loss_and_gradients_equal_those_of_whole_logits(at_once, dtype, monkeypatch):
    monkeypatch.setitem(loss_module._LOGITS_AT_ONCE, "cpu", at_once)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(40, 16, dtype=dtype, generator=generator).requires_grad_()
    weight = torch.randn(97, 16, dtype=dtype, generator=generator).requires_grad_()
    targets = torch.randint(97, (40,), generator=generator)
    loss = mean_cross_entropy(hidden, weight, targets)
    gradients = torch.autograd.grad(3 * loss, (hidden, weight))
    whole = F.cross_entropy(hidden @ weight.t(), targets)
    expected = torch.autograd.grad(3 * whole, (hidden, weight))
    torch.testing.assert_close(loss, whole, check_dtype=False, rtol=1e-5, atol=1e-6)
    for gradient, right in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, right, rtol=2e-5, atol=1e-6)
    scores = token_scores(hidden, weight, targets)
    assert scores.loss.mean().item() == pytest.approx(whole.item(), rel=1e-5)
    assert torch.equal(scores.right, (hidden @ weight.t()).argmax(1) == targets)


def test_loss_under_autocast_is_as_good_as_torchs():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(64, 32, generator=generator).requires_grad_()
    weight = (0.3 * torch.randn(500, 32, generator=generator)).requires_grad_()
    targets = torch.randint(500, (64,), generator=generator)
    exact = torch.autograd.grad(F.cross_entropy(hidden @ weight.t(), targets), (hidden, weight))
    errors = []
    for chunked in (True, False):
        with torch.autocast("cpu", torch.bfloat16):
            loss = (
                mean_cross_entropy(hidden, weight, targets)
                if chunked
                else F.cross_entropy(F.linear(hidden, weight).float(), targets)
            )
        assert loss.dtype == torch.float32
        found = torch.autograd.grad(loss, (hidden, weight))
        errors.append([(f - e).norm() / e.norm() for f, e in zip(found, exact, strict=True)])
    for ours, torchs in zip(*errors, strict=True):
        assert ours < 1.2 * torchs and ours < 0.02


def test_small_gradients_survive_half_precision():
    hidden = torch.randn(4096, 8).half().requires_grad_()
    weight = torch.randn(50, 8).half().requires_grad_()
    targets = torch.randint(50, (4096,))
    (mean_cross_entropy(hidden, weight, targets) * 2.0**10).backward()
    assert (hidden.grad != 0).any(dim=1).float().mean() > 0.99


def test_no_gradient_is_made_where_none_is_asked_for():
    hidden, weight = torch.randn(5, 4), torch.randn(7, 4)
    assert not mean_cross_entropy(hidden, weight, torch.arange(5)).requires_grad


# ----------------------------------------------------------------------------------------------------------- the cache


def test_cached_logits_equal_uncached():
    model, cache = small(activation="golu"), KeyValueCache()
    tokens = torch.randint(97, (2, 20))
    pieces = [model(part, cache=cache) for part in tokens.split([7, 1, 1, 5, 6], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(tokens), rtol=1e-4, atol=1e-5)
    assert cache.length == 20


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_generated_text_is_the_same_without_a_cache_also_behind_the_context(temperature):
    model = small(activation="golu")
    settings = {"context": 24, "temperature": temperature, "top_k": 20, "seed": 3}
    with_cache, without = (
        list(generated_tokens(model, [1, 2, 3], 40, **settings, cached=cached)) for cached in (True, False)
    )
    assert with_cache == without
    assert len(set(with_cache)) > 3 or temperature == 0


def test_top_k_1_is_the_most_probable_token():
    model = small()
    settings = {"context": 24, "seed": 0}
    greedy = list(generated_tokens(model, [5], 12, temperature=0.0, top_k=None, **settings))
    assert list(generated_tokens(model, [5], 12, temperature=1.7, top_k=1, **settings)) == greedy


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, None, 0.9), (0.7, None, 0.5), (1.3, 20, 0.8), (0.8, 5, None), (1.0, None, 1.0), (1.0, None, 1e-6)],
)
def test_tokens_are_drawn_with_the_probabilities_of_transformers(temperature, top_k, top_p):
    from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    warpers += [TopKLogitsWarper(top_k)] if top_k is not None else []
    warpers += [TopPLogitsWarper(top_p)] if top_p is not None else []
    for seed in range(20):
        logits = 3 * torch.randn(97, generator=torch.Generator().manual_seed(seed))
        theirs = warpers(torch.zeros(1, 1, dtype=torch.long), logits[None].clone()).softmax(dim=-1)[0]
        torch.testing.assert_close(probabilities(logits, temperature, top_k, top_p), theirs)


def test_a_text_ends_where_the_model_ends_it():
    model = small()
    settings = {"context": 24, "temperature": 1.0, "top_k": None, "seed": 0}
    tokens = list(generated_tokens(model, [5], 40, **settings))
    for end in set(tokens):
        assert list(generated_tokens(model, [5], 40, **settings, end=end)) == tokens[: tokens.index(end)]


@given(st.text("abc", max_size=30), st.lists(st.text("abc", min_size=1, max_size=4), max_size=3), st.randoms())
def test_a_text_ends_before_a_string_wherever_its_pieces_end(text, stops, random):
    cuts = sorted(random.randint(0, len(text)) for _ in range(random.randint(0, 9)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    expected = text[: min(ends)[1]] if ends else text  # the first to be complete; of two, the longer one
    assert "".join(until_stop(pieces, stops)) == "".join(until_stop(list(text), stops)) == expected


@pytest.mark.slow
def test_training_compiles_without_a_graph_break():
    model = GPT(SMALL, "golu")
    tokens = torch.randint(97, (2, 25))
    expected = model(tokens[:, :-1], tokens[:, 1:])
    expected.backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    model.compile(fullgraph=True)
    loss = model(tokens[:, :-1], tokens[:, 1:])
    loss.backward()
    torch.testing.assert_close(loss, expected)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("warmup", [1, 10, 100])
def test_the_warm_up_of_nanogpt_is_a_flag_away(warmup):
    """`get_lr` of nanoGPT's train.py: (it + 1) / (warmup_iters + 1) of the rate, then a cosine to `min_lr`."""
    steps, top, least = 600, 6e-4, 6e-5
    schedule = Cosine(final_lr=least, per="step", warmup=StepWarmup(steps=warmup, start_factor=1 / (warmup + 1)))
    for step in range(steps):
        if step < warmup:
            expected = top * (step + 1) / (warmup + 1)
        else:
            share = (step - warmup) / (steps - warmup)
            expected = least + 0.5 * (1 + math.cos(math.pi * share)) * (top - least)
        assert learning_rate(schedule, top, step, steps_per_epoch=steps, epochs=1) == pytest.approx(expected, rel=1e-12)
