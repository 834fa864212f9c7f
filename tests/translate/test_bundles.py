"""Bundles of pairs: each pair once, of bounded size, and steps whose gradient no split changes."""

from __future__ import annotations

import numpy
import pytest
import torch

from golu_core.training.data.orders import SampleKey, TrainBatches, plan_batches
from golu_core.training.messages.errors import RequestError
from golu_translate.bundles import (
    BundleOrder,
    EvaluatedBundles,
    TrainingBundles,
    bundles_of,
    padding_share,
)
from golu_translate.config import Transformer
from golu_translate.data import Side, Split
from golu_translate.model import Translator
from golu_translate.vocabulary import END, PAD

VOCABULARY = 50


@pytest.fixture(scope="module")
def split(tmp_path_factory) -> Split:
    """503 pairs of random lengths."""
    random = numpy.random.default_rng(0)
    folder = tmp_path_factory.mktemp("split")
    for name in ("en", "de"):
        lengths = random.integers(1, 40, 503)
        parts = [[*random.integers(4, VOCABULARY, length).tolist(), END] for length in lengths]
        (folder / f"{name}.bin").write_bytes(numpy.concatenate(parts).astype(numpy.uint16).tobytes())
    return Split(*(Side(folder / f"{name}.bin", VOCABULARY) for name in ("en", "de")))


@pytest.mark.parametrize("most", [41, 100, 512, 4096, 1 << 20])
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_each_pair_is_in_one_bundle_that_is_not_too_large(split, most, seed):
    bundles = bundles_of(split, most, seed)
    assert sorted(numpy.concatenate(bundles).tolist()) == list(range(503))
    for bundle in bundles:
        for side in split:
            assert len(bundle) * int(side.lengths[bundle].max()) <= most
    assert all(len(bundle) % 8 == 0 or len(bundle) < 8 for bundle in bundles[:-1])


def test_bundles_are_of_similar_length_and_full(split):
    bundles = bundles_of(split, 512, 0)
    assert all(numpy.ptp(split.source.lengths[bundle]) <= 6 for bundle in bundles)
    random = [numpy.arange(start, min(start + 12, 503)) for start in range(0, 503, 12)]
    assert padding_share(split, bundles) < padding_share(split, random)


def test_the_seed_changes_neighbors_only(split):
    one, other, again = (bundles_of(split, 512, seed) for seed in (0, 1, 0))
    assert all(map(numpy.array_equal, one, again))
    assert not all(map(numpy.array_equal, one, other))
    lengths = [[sorted(split.source.lengths[bundle].tolist()) for bundle in bundles] for bundles in (one, other)]
    assert sum(map(lambda a, b: a != b, *lengths)) < len(one) // 2


def test_a_pair_that_is_too_long_is_named(split):
    with pytest.raises(RequestError, match=r"has 4\d subwords, and a bundle holds 30: set --data.bundle-tokens"):
        bundles_of(split, 30, 0)


def test_every_pass_takes_other_bundles_in_another_order(split):
    order = BundleOrder(len(bundles_of(split, 512, 0)), 4, seed=0, steps_per_epoch=3)
    passes = [[order.step_bundles(order.steps_per_pass * n + k) for k in range(order.steps_per_pass)] for n in range(3)]
    for steps in passes:
        taken = [bundle for step in steps for bundle in step]
        assert len(taken) == len(set(taken)) == order.steps_per_pass * 4
    assert passes[0] != passes[1] != passes[2]
    stretches = [*order.global_batches(0, 0), *order.global_batches(1, 0)]
    assert stretches == [order.step_bundles(step) for step in range(6)]
    assert list(order.global_batches(1, 2)) == [order.step_bundles(5)]


def test_too_few_bundles_are_refused():
    with pytest.raises(RequestError, match="a batch of 8 bundles is larger than the training set of 3"):
        BundleOrder(3, 8, 0, 10)


def keys_of_step(order: BundleOrder, step: int, processes: int, most: int | None) -> list[list[list[SampleKey]]]:
    """For each process its pieces of a step."""
    plan = plan_batches(order.batch_size, processes, most)
    found = []
    for rank in range(processes):
        batches = TrainBatches(order, plan, rank)
        batches.begin(step // order.steps_per_epoch, step % order.steps_per_epoch)
        found.append(list(batches)[: plan.accumulation])
    return found


@pytest.mark.parametrize("step", [0, 4, 17])
def test_gradients_of_a_step_are_the_same_however_it_is_split(split, step):
    """The mean over the step's subwords, though pieces have different numbers of them."""
    order = BundleOrder(len(bundles_of(split, 256, 0)), 4, seed=0, steps_per_epoch=5)
    dataset = TrainingBundles(split, bundles_of(split, 256, 0), order)
    torch.manual_seed(0)
    sizes = Transformer(layers=1, heads=2, width=16, feed_forward=32, longest=64, vocabulary=VOCABULARY, dropout=0.0)
    model = Translator(sizes, "golu")

    def gradients(processes: int, most: int | None) -> tuple[float, dict[str, torch.Tensor]]:
        model.zero_grad()
        shares = keys_of_step(order, step, processes, most)
        losses = []
        for pieces in shares:
            for keys in pieces:  # as `Run.backward` and the launcher average them
                source, previous, targets, places, scale = dataset.__getitems__(keys)
                loss = model(source, previous, targets, places, smoothing=0.1) * scale
                (loss / len(pieces) / processes).backward()
                losses.append(float(loss.detach()))
        return sum(losses) / len(losses), {name: p.grad.clone() for name, p in model.named_parameters()}

    pairs = numpy.concatenate([dataset.bundles[n] for n in order.step_bundles(step)])
    counts = [len(split.target.sentence(int(n))) for n in pairs]
    assert len({len(dataset.bundles[n]) * 1 for n in order.step_bundles(step)}) > 1 or len(set(counts)) > 1
    expected_loss, expected = gradients(1, None)
    total = 0.0
    for number in pairs.tolist():  # pair by pair, each subword counted once
        source, target = (torch.from_numpy(side.sentence(number).astype(numpy.int64)) for side in split)
        logits = model(source[None], torch.cat([torch.tensor([END]), target[:-1]])[None])[0]
        total += float(torch.nn.functional.cross_entropy(logits, target, label_smoothing=0.1, reduction="sum").detach())
    assert expected_loss == pytest.approx(total / sum(counts), rel=1e-5)
    for processes, most in ((1, 1), (1, 2), (2, None), (2, 1), (4, 1)):
        loss, found = gradients(processes, most)
        assert loss == pytest.approx(expected_loss, rel=1e-5), (processes, most)
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=f"{name} {processes} {most}")


def test_evaluation_takes_each_subword_once(split):
    bundles = EvaluatedBundles(split, 300)
    seen = []
    for number in range(len(bundles)):
        source, previous, targets, places, scale = bundles.__getitems__([SampleKey(number, -1, number)])
        assert scale == 1 and (previous[:, 0] == END).all() and len(places) == len(targets)
        assert (targets != PAD).all() and int((targets == END).sum()) == len(source)
        seen += targets.tolist()
    assert sorted(seen) == sorted(numpy.asarray(split.target.subwords).tolist())
    *_, scale = bundles.__getitems__([SampleKey(0, -1, -1)])
    assert scale == 0, "what only fills a batch must not count"
