"""Analyses of trained networks, against exact values and on runs of three tasks."""

from __future__ import annotations

import copy
import html
import json
import math
import re
from types import SimpleNamespace

import numpy
import pytest
import torch
from torch import nn

from golu_core import GoLU
from golu_core.studies.analyses.hessian import curvature, density, hessian_product, quadrature
from golu_core.studies.analyses.landscape import direction_like, plane_of, recompute_batch_norm, shape_numbers
from golu_core.studies.analyses.noise import SHARES, metric_under_noise, noisy_weights
from golu_core.studies.analyses.trained import mean_and_half_width
from golu_core.studies.analyses.variance import before_activations, layer_spreads, slope_of
from golu_core.studies.analyze import main
from golu_core.training.tasks.analysis_model import AnalysisModel, spread_keys, with_noise
from golu_core.training.tasks.task import installed_tasks

RESULT = SimpleNamespace(recipe="tiny", model="tiny", primary_metric=SimpleNamespace(name="loss"))


def tiny_model(activation: nn.Module | None = None, batches: int = 2) -> AnalysisModel:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), activation or GoLU(), nn.BatchNorm1d(4), nn.Linear(4, 2)).double().eval()
    model[2].running_var.fill_(1.7)
    data = [(torch.randn(5 - n, 3).double(), torch.randint(2, (5 - n,))) for n in range(batches)]

    def loss(network, batch):
        return nn.functional.cross_entropy(network(batch[0]), batch[1])

    def metrics(network, given):
        total = sum(len(batch[0]) * loss(network, batch).item() for batch in given)
        return {"loss": total / sum(len(batch[0]) for batch in given)}

    def noisy(batch, share, random):
        return with_noise(batch[0], share, random), batch[1]

    return AnalysisModel(RESULT, model, data, loss, metrics, noisy)


def quadratic_model(matrix: torch.Tensor) -> AnalysisModel:
    """A loss of w @ A @ w / 2, whose Hessian is A."""

    class Weights(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.linspace(-1, 1, len(matrix), dtype=torch.float64))

    def loss(network, batch):
        return network.w @ matrix @ network.w / 2

    return AnalysisModel(
        RESULT, Weights(), [(torch.zeros(1),)], loss, lambda network, given: {"loss": float(loss(network, 0))}
    )


# ------------------------------------------------------------------------------------------------------------- Hessian


def exact_hessian(analyzed: AnalysisModel) -> numpy.ndarray:
    """By torch.func over all parameters at once."""
    names, parameters = zip(*analyzed.model.named_parameters(), strict=True)
    sizes = [parameter.numel() for parameter in parameters]

    def total(flat):
        parts = {n: part.view_as(p) for n, part, p in zip(names, flat.split(sizes), parameters, strict=True)}

        def called(x):
            return torch.func.functional_call(analyzed.model, parts, (x,))

        return sum(len(batch[0]) * analyzed.loss(called, batch) for batch in analyzed.batches) / analyzed.samples

    flat = torch.cat([parameter.detach().flatten() for parameter in parameters])
    return torch.func.hessian(total)(flat).numpy()


@pytest.mark.parametrize("activation", [GoLU(), nn.Tanh(), nn.GELU()], ids=lambda module: type(module).__name__)
def test_the_hessian_is_the_exact_one(activation):
    analyzed = tiny_model(activation)
    exact = exact_hessian(analyzed)
    count, product = hessian_product(analyzed)
    assert exact.shape == (count, count)
    found = numpy.stack([product(row) for row in numpy.eye(count)])
    numpy.testing.assert_allclose(found, exact, atol=1e-10)
    eigenvalues = numpy.linalg.eigvalsh(exact)
    seen = curvature(analyzed, top=3, vectors=40, steps=12)
    numpy.testing.assert_allclose(seen.top, eigenvalues[-1:-4:-1], rtol=1e-2, atol=1e-6)
    assert seen.lowest == pytest.approx(eigenvalues[0], rel=0.05, abs=1e-4)
    assert abs(seen.trace - numpy.trace(exact)) < 4 * seen.trace_error + 1e-9
    assert sum(seen.weights) == pytest.approx(1)


def test_a_known_spectrum():
    turned, _ = numpy.linalg.qr(numpy.random.default_rng(0).normal(size=(30, 30)))
    values = numpy.array([9.0, 5.0, -2.0, *numpy.linspace(0, 1, 27)])
    seen = curvature(quadratic_model(torch.from_numpy(turned @ numpy.diag(values) @ turned.T)), 2, 60, 30)
    assert seen.top == pytest.approx((9, 5), rel=1e-3) and seen.lowest == pytest.approx(-2, rel=1e-2)
    assert abs(seen.trace - values.sum()) < 4 * seen.trace_error
    at = numpy.linspace(-4, 11, 3001)
    total = density(seen, at, 0.1).sum() * (at[1] - at[0])
    assert total == pytest.approx(1, abs=1e-3)
    above = density(seen, at[at > 3], 0.1).sum() * (at[1] - at[0])
    assert above == pytest.approx(2 / 30, rel=0.35)  # two of thirty eigenvalues


def test_lanczos_ends_where_the_space_ends():
    places, shares = quadrature(lambda v: numpy.array([2.0, 2.0, 5.0]) * v, numpy.array([1.0, 1.0, 1.0]), 3)
    assert places == pytest.approx([2, 5]) and shares == pytest.approx([2 / 3, 1 / 3])


# ----------------------------------------------------------------------------------------------------------- landscape


@pytest.mark.parametrize("kind", ["filter", "paper"])
def test_a_convex_function_is_a_smooth_bowl(kind):
    analyzed = quadratic_model(torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)))
    with torch.no_grad():
        analyzed.model.w.zero_()
        analyzed.model.w.data = torch.full((4,), 1e-9, dtype=torch.float64)
    plane = plane_of(analyzed, 11, 1.0, kind, recompute=False)
    if kind == "filter":  # vectors stay
        assert numpy.ptp(plane.losses) == 0
        return
    first, second = (direction_like(analyzed.model, kind, draw)[0] for draw in (0, 1))
    at = torch.full((4,), 1e-9).double() + 0.6 * first - 0.4 * second
    expected = float(analyzed.loss(SimpleNamespace(w=at), None))
    assert plane.losses[8, 3] == pytest.approx(expected)
    assert plane.losses.min() == plane.losses[5, 5]
    assert plane.sharpness > 0 and plane.roughness < 1e-6


@pytest.mark.parametrize("points", range(5, 43, 2))
def test_no_point_of_the_ring_is_lost_to_rounding(points):
    """Those within a step of half the reach, in whole numbers: 16 (i² + j²) from (points - 3)² to (points + 1)²."""
    middle, ring, edge = points // 2, 0, numpy.zeros((points, points))
    for i, j in numpy.ndindex(points, points):
        size = 16 * ((i - middle) ** 2 + (j - middle) ** 2)
        ring += (points - 3) ** 2 <= size <= (points + 1) ** 2
        edge[i, j] = size in ((points - 3) ** 2, (points + 1) ** 2)
    edge[middle, middle] = 0.0
    assert shape_numbers(edge)[0] == pytest.approx(edge.sum() / ring)


def test_roughness_is_what_no_paraboloid_explains():
    place = numpy.linspace(-1, 1, 21)
    x, y = numpy.meshgrid(place, place, indexing="ij")
    bowl = 3 * x**2 + y**2 + x * y + 0.5 * x
    assert shape_numbers(bowl)[1] < 1e-9
    waves = numpy.cos(25 * x) * numpy.cos(25 * y)
    assert shape_numbers(bowl + 0.3 * waves)[1] > shape_numbers(bowl + 0.1 * waves)[1] > 0.02
    assert shape_numbers(2 * bowl)[0] == pytest.approx(2 * shape_numbers(bowl)[0])
    assert shape_numbers(numpy.where(x > 0.2, numpy.inf, bowl)) == (math.inf, math.inf)


def test_filters_of_a_direction_are_as_long_as_those_of_the_weights():
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(7, 4))
    for parameter, direction in zip(model.parameters(), direction_like(model, "filter", 0), strict=True):
        if parameter.ndim < 2:
            assert not direction.any()
        else:
            torch.testing.assert_close(direction.flatten(1).norm(dim=1), parameter.flatten(1).norm(dim=1))


def test_the_middle_is_the_run_and_nothing_is_changed():
    analyzed = tiny_model()
    before = copy.deepcopy(analyzed.model.state_dict())
    plane = plane_of(analyzed, 5, 0.5, "filter", recompute=False)
    assert plane.losses[2, 2] == pytest.approx(analyzed.mean_loss(analyzed.model))
    other = plane_of(analyzed, 5, 0.5, "filter", recompute=True)
    assert other.losses[2, 2] != plane.losses[2, 2]
    assert all(torch.equal(before[name], value) for name, value in analyzed.model.state_dict().items())


def test_recomputed_statistics_are_means_over_the_batches():
    analyzed = tiny_model(batches=3)
    recompute_batch_norm(analyzed.model, analyzed)
    inputs = [analyzed.model[:2](batch[0]) for batch in analyzed.batches]
    expected = torch.stack([x.mean(dim=0) for x in inputs]).mean(dim=0)
    torch.testing.assert_close(analyzed.model[2].running_mean, expected.detach())
    assert not any(module.training for module in analyzed.model.modules()) and analyzed.model[2].momentum == 0.1


# --------------------------------------------------------------------------------------------------- noise, and layers


def test_noise_has_the_deviation_that_it_should():
    model = nn.Linear(200, 300)
    changed = noisy_weights(model, 0.25, draw=0)
    noise, size = (changed.weight - model.weight).detach(), model.weight.detach().square().mean().sqrt()
    assert float(noise.std()) == pytest.approx(0.25 * float(size), rel=0.02)
    assert torch.equal(changed.bias, model.bias) and not torch.equal(
        noisy_weights(model, 0.25, 1).weight, changed.weight
    )
    x = 3 + 2 * torch.randn(400, 100)
    added = with_noise(x, 0.5, torch.Generator().manual_seed(0)) - x
    assert float(added.std()) == pytest.approx(1, rel=0.02) and abs(float(added.mean())) < 0.02


def test_the_metric_without_noise_is_that_of_the_run():
    analyzed = tiny_model()
    found = metric_under_noise(analyzed, draws=3)
    assert set(found) == {"weights", "inputs"} and all(len(values) == len(SHARES) for values in found.values())
    assert found["weights"][0] == found["inputs"][0] == pytest.approx(analyzed.mean_loss(analyzed.model))
    assert len(set(found["weights"])) == len(set(found["inputs"])) == len(SHARES)


def test_spreads_of_layers_are_those_of_their_values():
    analyzed = tiny_model()
    (layer,) = layer_spreads(analyzed)
    x = torch.cat([analyzed.model[0](batch[0]) for batch in analyzed.batches]).detach().requires_grad_()
    y = analyzed.model[1](x)
    labels = torch.cat([batch[1] for batch in analyzed.batches])
    each = nn.functional.cross_entropy(analyzed.model[2:](y), labels, reduction="none")
    (gradient,) = torch.autograd.grad(each.sum(), y)
    assert layer.module == "1"
    assert layer.output_variance == pytest.approx(y.var(correction=0).item())
    assert layer.gradient_variance == pytest.approx(gradient.square().mean().item())
    assert layer.flat == pytest.approx(float((slope_of(analyzed.model[1], x) < 0.01).double().mean()))


def test_dead_units_are_counted():
    analyzed = tiny_model(nn.ReLU(inplace=True))
    with torch.no_grad():
        analyzed.model[0].bias[:] = torch.tensor([-100.0, 100.0, 100.0, 100.0])
    (layer,) = layer_spreads(analyzed)
    assert layer.dead == layer.flat == 0.25


def test_the_photograph_is_normalized_before_the_activation():
    x = before_activations(seed=0)
    assert float(x.mean()) == pytest.approx(0, abs=1e-5)
    assert float(x.var()) == pytest.approx(1, abs=5e-3)  # batch norm's eps counts beside the small variances


def test_samples_lie_evenly():
    assert [key.sample for keys in spread_keys(10, 5, 2) for key in keys] == [0, 2, 4, 6, 8]
    assert [len(keys) for keys in spread_keys(10, 99, 4)] == [4, 4, 2]


def test_the_interval_is_students():
    from scipy import stats

    values = [1.0, 2.5, 3.0, 7.0]
    mean, half = mean_and_half_width(values)
    low, high = stats.t.interval(0.95, 3, numpy.mean(values), stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high))
    assert mean_and_half_width(values[:2])[1] is None


# ------------------------------------------------------------------------------------------------- runs of the programs

SMALL = {
    "vision": ["digits", "--epochs", "1", "--max-steps", "3", "--schedule.warmup", "none"],
    "diffusion": [
        *["ddpm-digits", "--max-steps", "2", "--model.width", "8", "--model.multipliers", "1", "2"],
        *["--model.groups", "4", "--noise.steps", "20", "--samples", "0", "--eval-noise-draws", "1"],
        *["--schedule.warmup.steps", "1"],
    ],
    "lm": [
        *["babygpt-pydocs", "--steps", "2", "--eval-every", "2", "--eval-sequences", "2", "--sample-tokens", "1"],
        *["--model.layers", "2", "--model.heads", "2", "--model.width", "32", "--model.context", "32"],
        *["--batch-size", "4", "--schedule.warmup.steps", "1"],
    ],
}
ANALYSES_OF_RUNS = {
    "variance": [],
    "noise": ["--draws", "2"],
    "landscape": ["--points", "5"],
    "hessian": ["--steps", "4", "--vectors", "2", "--top", "1"],
}


def test_every_task_with_an_analysis_model_is_tested():
    assert set(SMALL) == {name for name, task in installed_tasks().items() if task.analysis_model is not None}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Short runs of two activations for each task."""
    from importlib import import_module

    folder = tmp_path_factory.mktemp("trained")
    for task, flags in SMALL.items():
        command_line = import_module(f"{installed_tasks()[task].package}.cli").COMMAND_LINE
        for activation in ("golu", "relu"):
            places = ["--data-dir", str(folder / "data"), "--output-dir", str(folder / "runs")]
            assert command_line.main(["train", *flags, "--activation", activation, *places]) == 0
    return folder / "runs"


@pytest.mark.parametrize(
    ("task", "analysis"),
    [
        pytest.param(task, analysis, marks=() if task == "lm" or analysis == "variance" else pytest.mark.slow)
        for task in SMALL
        for analysis in ANALYSES_OF_RUNS
    ],
)
def test_an_analysis_of_runs_writes_its_files(task, analysis, runs, tmp_path, capsys):
    flags = ["--samples", "5", *ANALYSES_OF_RUNS[analysis], "--out", str(tmp_path / "out")]
    assert main([analysis, str(runs / task), *flags]) == 0
    assert "GoLU" in capsys.readouterr().out
    found = json.loads((tmp_path / "out" / f"{analysis}.json").read_text())
    assert {(run["task"], run["activation"]) for run in found["runs"]} == {(task, "golu"), (task, "relu")}
    assert all(path.stat().st_size > 1000 for path in (tmp_path / "out").glob("*.png"))
    assert list((tmp_path / "out").glob("*.png"))
    if analysis == "landscape":
        page = (tmp_path / "out" / "landscape.html").read_text()
        planes = [json.loads(html.unescape(rows)) for rows in re.findall(r'data-rows="([^"]*)"', page)]
        assert len(planes) == 2 and all(len(plane) == 5 and len(plane[0]) == 5 for plane in planes)
        assert "src=" not in page and "href=" not in page


@pytest.mark.parametrize("task", SMALL)
def test_an_analysis_model_measures_what_evaluate_does(task, runs):
    """Over the whole test set the metrics are those of result.json."""
    from golu_core.training.tasks.analysis_model import make_analysis_model

    (folder,) = (path.parent for path in (runs / task).rglob("result.json") if "golu" in path.parts)
    analyzed = make_analysis_model(installed_tasks()[task], folder, 10**6, None)
    found = analyzed.metrics(analyzed.model, analyzed.batches)
    for name, value in found.items():
        assert value == pytest.approx(analyzed.result.metrics[name], rel=2e-3 if task == "lm" else 1e-4)


REFUSED = {
    "no runs": (["noise"], "name the folders"),
    "not a folder": (["hessian", "nowhere"], "does not exist"),
    "an even grid": (["landscape", "runs", "--points", "6"], "odd number"),
    "activations and folders": (["variance", "golu", "."], "not both"),
    "no samples": (["noise", "runs", "--samples", "0"], "samples"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_requests_are_one_message(case, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words, message = REFUSED[case]
    assert main(words) == 2
    shown = capsys.readouterr().err.strip()
    assert message in shown and len(shown.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
