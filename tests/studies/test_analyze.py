"""The analyses against values that were worked out otherwise: SciPy's distributions and integrals, known spectra."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import save_file
from scipy import integrate, stats

from golu_core.activation import build_activation
from golu_core.activation.names.registry import ACTIVATIONS
from golu_core.studies.analyses.gates import moments_of, shape_of
from golu_core.studies.analyses.spectrum import DEVIATIONS, MEANS, largest_modulus, moduli
from golu_core.studies.analyses.weights import spread_of
from golu_core.studies.analyze import ANALYSES, main
from golu_core.training.runs.results import read_result, write_result
from golu_core.training.storage.fingerprint import file_digest
from golu_core.training.tasks.task import installed_tasks
from runs_on_disk import write_run

X = numpy.linspace(-5, 5, 1001)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x)) if x < 30 else x


GATES = {
    "golu": (stats.gumbel_r.cdf, stats.gumbel_r.pdf),
    "gelu": (stats.norm.cdf, stats.norm.pdf),
    "swish": (stats.logistic.cdf, stats.logistic.pdf),
    "mish": (
        lambda x: numpy.tanh(numpy.log1p(numpy.exp(x))),
        lambda x: stats.logistic.cdf(x) / numpy.cosh(numpy.log1p(numpy.exp(x))) ** 2,
    ),
}


@pytest.mark.parametrize("name", GATES)
def test_gates_are_the_distributions_of_the_paper(name):
    """Value, gate and density; slope and curvature by the product rule from them."""
    gate, density = (function(X) for function in GATES[name])
    shape = shape_of(build_activation(name).double(), X)
    numpy.testing.assert_allclose(shape.value, X * gate, rtol=1e-9, atol=1e-12)
    numpy.testing.assert_allclose(shape.gate, gate, rtol=1e-6, atol=1e-9)
    numpy.testing.assert_allclose(shape.density, density, rtol=1e-5, atol=1e-7)
    numpy.testing.assert_allclose(shape.slope, gate + X * density, rtol=1e-7, atol=1e-10)
    by_differences = numpy.gradient(shape.slope, X)[2:-2]
    numpy.testing.assert_allclose(shape.curvature[2:-2], by_differences, atol=1e-3)


@pytest.mark.parametrize("name", ["sigmoid", "softplus"])
def test_what_is_not_0_at_0_has_no_gate(name):
    assert shape_of(build_activation(name).double(), X).gate is None


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in GATES else pytest.mark.slow) for name in ACTIVATIONS]
)
def test_moments_are_scipys_integrals(name):
    function = build_activation(name).double()

    def mean_of(power: int, of_slope: bool) -> float:
        def integrand(x: float) -> float:
            points = torch.tensor([x], dtype=torch.float64, requires_grad=True)
            value = function(points)
            found = torch.autograd.grad(value.sum(), points)[0] if of_slope else value
            return float(found.detach()) ** power * stats.norm.pdf(x)

        return sum(integrate.quad(integrand, *ends, epsabs=1e-10)[0] for ends in ((-12, 0), (0, 12)))

    found = moments_of(function)
    mean, slope = mean_of(1, False), mean_of(1, True)
    assert found.mean == pytest.approx(mean, abs=1e-7)
    assert found.variance == pytest.approx(mean_of(2, False) - mean**2, abs=1e-7)
    assert found.slope_mean == pytest.approx(slope, abs=1e-6)
    assert found.slope_variance == pytest.approx(mean_of(2, True) - slope**2, abs=1e-6)


def test_the_largest_modulus_of_known_spectra():
    turned, _ = numpy.linalg.qr(numpy.random.default_rng(0).normal(size=(40, 40)))
    assert largest_modulus(turned) == pytest.approx(1)  # all eigenvalues of a rotation
    assert largest_modulus(turned @ numpy.diag([-7.0, *range(3, 0, -1), *[0.5] * 36]) @ turned.T) == pytest.approx(7)
    assert largest_modulus(numpy.full((30, 30), 2.0)) == pytest.approx(60)


def test_random_matrices_follow_the_circular_law_and_their_mean():
    values, slopes = moduli(lambda x: 2 * x, 150)
    row, column = MEANS.index(0.0), DEVIATIONS.index(1.0)
    assert values[row, column] / math.sqrt(150) == pytest.approx(2, rel=0.15)
    assert values[MEANS.index(2.0), column] == pytest.approx(2 * 2 * 150, rel=0.05)
    assert slopes == pytest.approx(numpy.full(slopes.shape, 2.0 * 150))


def test_spreads_are_scipys():
    weights = numpy.random.default_rng(0).standard_t(5, 5000)
    found = spread_of(weights)
    assert found.std == pytest.approx(weights.std())
    assert found.kurtosis == pytest.approx(stats.kurtosis(weights))
    assert (found.low, found.high) == pytest.approx(tuple(stats.scoreatpercentile(weights, [1, 99])))
    assert math.isnan(spread_of(numpy.ones(9)).kurtosis)


# ------------------------------------------------------------------------------------------------------------ commands


def write_weights(folder: Path, seed: int, scale: float) -> None:
    """Weights of a run, and their checksum in its result."""
    random = torch.Generator().manual_seed(seed)
    tensors = {
        "fc.weight": scale * torch.randn(40, 50, generator=random),
        "conv.weight": scale * torch.randn(8, 4, 3, 3, generator=random),
        "fc.bias": torch.full((50,), 99.0),
        "activation.weight": torch.full((1,), 99.0),
        "steps": torch.tensor([[1, 2]]),
    }
    save_file(tensors, folder / "model.safetensors")
    result = read_result(folder / "result.json")
    files = {"model.safetensors": file_digest(folder / "model.safetensors")}
    write_result(folder / "result.json", dataclasses.replace(result, files=files))


@pytest.fixture
def runs(tmp_path):
    for activation, scale in (("relu", 1.0), ("golu", 0.5)):
        for seed in range(3):
            folder = write_run(tmp_path / "runs", "vision", "digits", activation, seed, {"top1": 90.0})
            write_weights(folder, seed, scale)
    return tmp_path / "runs"


def test_weights_are_grouped_over_seeds(runs, tmp_path, capsys):
    assert main(["weights", str(runs), "--out", str(tmp_path / "out")]) == 0
    assert "2,288" in capsys.readouterr().out  # 40 x 50 and 8 x 4 x 3 x 3, and no vector
    found = json.loads((tmp_path / "out" / "weights.json").read_text())
    assert found["schema"] == "golu-analysis/1" and len(found["runs"]) == 6
    for run in found["runs"]:
        assert run["std"] == pytest.approx(0.5 if run["activation"] == "golu" else 1.0, rel=0.1)
    assert (tmp_path / "out" / "weights-digits.png").stat().st_size > 1000
    assert "digits: learned weights" in (tmp_path / "out" / "weights.md").read_text()


@pytest.mark.parametrize("kind", ["missing", "damaged", "torn"])
def test_weights_that_cannot_be_used_are_named(kind, runs, tmp_path, capsys):
    path = runs / "vision" / "digits" / "golu" / "seed1" / "model.safetensors"
    if kind == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-8] + (b"" if kind == "torn" else b"x" * 8))
    assert main(["weights", str(runs), "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert "model.safetensors is " in message and "Traceback" not in message
    assert not (tmp_path / "out").exists()


# -------------------------------------------------------------------------------------------------------- ablations


def write_ablation(root: Path, rates: tuple[float, ...], epochs: tuple[int, ...]) -> None:
    """Runs whose top-1 follows from their settings."""
    base = installed_tasks()["vision"].recipes["mlp-digits"]
    for activation, seed, rate, length in itertools.product(("relu", "golu"), range(3), rates, epochs):
        place = root / f"{rate}-{length}" / activation / str(seed)
        metrics = {"top1": 50 + 1000 * rate + length + seed / 10 + (activation == "golu"), "loss": 1 / length}
        optim = dataclasses.replace(base.optim, lr=rate)
        folder = write_run(
            root, "vision", "mlp-digits", activation, seed, metrics, place=place, optim=optim, epochs=length
        )
        lines = [{"step": step, "split": "train", "loss": 1.0, "weight_norm": 10.0 * step} for step in (1, length)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_an_ablation_is_over_the_settings_that_differ(tmp_path, capsys):
    write_ablation(tmp_path / "runs", (0.01, 0.001), (5, 8))
    assert main(["ablation", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    assert "GoLU" in capsys.readouterr().out
    cells = json.loads((tmp_path / "out" / "ablation.json").read_text())["cells"]
    assert len(cells) == 2 * 4
    for cell in cells:
        rate, length = cell["settings"]["optim.lr"], cell["settings"]["epochs"]
        golu = cell["activation"] == "golu"
        assert cell["values"] == pytest.approx([50 + 1000 * rate + length + seed / 10 + golu for seed in range(3)])
    assert (tmp_path / "out" / "ablation-mlp-digits.png").stat().st_size > 1000


@pytest.mark.parametrize(("metric", "expected"), [("loss", 1 / 8), ("weight_norm", 80.0)])
def test_an_ablation_over_one_setting_and_other_metrics(metric, expected, tmp_path):
    write_ablation(tmp_path / "runs", (0.01,), (5, 8))
    assert main(["ablation", str(tmp_path / "runs"), "--metric", metric, "--out", str(tmp_path / "out")]) == 0
    cells = json.loads((tmp_path / "out" / "ablation.json").read_text())["cells"]
    assert [c["values"] for c in cells if c["settings"]["epochs"] == 8] == [pytest.approx([expected] * 3)] * 2


@pytest.mark.parametrize(
    ("rates", "flags", "message"),
    [
        ((0.01,), [], "nothing but activation and seed"),
        ((0.01, 0.1), ["--metric", "bleu"], "no metric 'bleu'; it has top1, loss, weight_norm"),
    ],
)
def test_what_is_not_an_ablation_is_refused(rates, flags, message, tmp_path, capsys):
    write_ablation(tmp_path / "runs", rates, (5,))
    assert main(["ablation", str(tmp_path / "runs"), *flags, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


QUICK = {"gates": [], "spectrum": ["--size", "12"]}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=() if kind == "png" or name == "gates" else pytest.mark.slow)
        for name in QUICK
        for kind in ("png", "pdf", "svg")
    ],
)
def test_an_analysis_writes_its_files(name, kind, tmp_path, capsys):
    activations = ["golu", "SiLU", "relu", "sigmoid", "golu"]
    assert main([name, *activations, *QUICK[name], "--figures", kind, "--out", str(tmp_path / "out")]) == 0
    assert "GoLU" in capsys.readouterr().out
    found = json.loads((tmp_path / "out" / f"{name}.json").read_text())
    assert list(found["activations"]) == ["golu", "swish", "relu", "sigmoid"]
    assert len(list((tmp_path / "out").glob(f"*.{kind}"))) >= 2
    assert main([name, "golu", *QUICK[name], "--out", str(tmp_path / "out")]) == 0  # over its own files


WRONG = {
    "no analysis": ["shapes"],
    "no such activation": ["gates", "golo"],
    "no runs": ["weights"],
    "no folder": ["weights", "nowhere"],
    "a small matrix": ["spectrum", "--size", "1"],
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_requests_are_one_message(kind, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(WRONG[kind]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_other_peoples_folders_stay(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("all of it")
    assert main(["gates", "--out", str(tmp_path)]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_every_analysis_is_listed(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ANALYSES)
