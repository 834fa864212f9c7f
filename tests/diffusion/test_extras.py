"""An extra that fails costs no run, and pictures are drawn from the weights that the metric is of."""

from __future__ import annotations

import json
import sys
import types

import pytest

from command_line import runner_in_this_process
from diffusion_program import FOLDER, TINY
from golu_diffusion.cli import COMMAND_LINE


@pytest.fixture
def run_here(monkeypatch, capfd):
    monkeypatch.setattr(
        "matplotlib.figure.Figure.savefig", lambda figure, path, **options: path.write_bytes(b"picture")
    )
    return runner_in_this_process(COMMAND_LINE, monkeypatch, capfd)


@pytest.fixture
def fidelity(monkeypatch):
    """torch-fidelity's place, taken by a module of the test's."""
    module, utils = types.ModuleType("torch_fidelity"), types.ModuleType("torch_fidelity.utils")
    module.__spec__ = types.SimpleNamespace()
    utils.create_feature_extractor = lambda *names, **options: None
    module.calculate_metrics = lambda **options: {"frechet_inception_distance": 12.5}
    module.utils = utils
    monkeypatch.setitem(sys.modules, "torch_fidelity", module)
    monkeypatch.setitem(sys.modules, "torch_fidelity.utils", utils)
    return module


def command(images, *more):
    return ["train", "ddpm-digits", "--data.images", str(images), *TINY, "--epochs", "1", *more]


def test_the_distance_is_added_to_a_result_that_is_written(fidelity, few_images, tmp_path, run_here):
    done = run_here(*command(few_images, "--fid-images", "3"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / FOLDER / "result.json").read_text())["metrics"]
    assert metrics["fid"] == 12.5 and metrics["fid_images"] == 3
    assert run_here("evaluate", str(FOLDER), cwd=tmp_path).returncode == 0


def test_a_network_that_cannot_be_loaded_is_refused_before_anything(fidelity, few_images, tmp_path, run_here):
    def offline(*names, **options):
        raise OSError("[Errno -2] Name or service not known")

    fidelity.utils.create_feature_extractor = offline
    (tmp_path / "weights.pth").write_bytes(b"something else")
    for flags in ([], ["--fid-weights", "weights.pth"]):
        done = run_here(*command(few_images, "--fid-images", "3", *flags), cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert "--fid-weights" in done.stderr and "Traceback" not in done.stderr
        assert not (tmp_path / "runs").exists()


def test_a_distance_that_fails_leaves_the_finished_run(fidelity, few_images, tmp_path, run_here):
    def broken(**options):
        raise RuntimeError("the disk is full")

    fidelity.calculate_metrics = broken
    done = run_here(*command(few_images, "--fid-images", "3"), cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr.count("warning: the Frechet distance of --fid-images could not be made (the disk is full)") == 1
    assert "Traceback" not in done.stderr
    assert "loss" in json.loads((tmp_path / FOLDER / "result.json").read_text())["metrics"]
    assert (tmp_path / FOLDER / "model.safetensors").exists()
    assert "finished already" in run_here(*command(few_images, "--fid-images", "3"), cwd=tmp_path).stdout


def test_samples_are_drawn_from_the_weights_that_the_metric_is_of(few_images, tmp_path, run_here):
    done = run_here(*command(few_images, "--average.decay", "0.9"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    drawn = {}
    for weights in ("evaluated", "average", "last"):
        flags = ["--count", "2", "--sampler", "ddim", "--steps", "2", "--grid", f"{weights}.png", "--weights", weights]
        assert run_here("sample", str(FOLDER), *flags, cwd=tmp_path).returncode == 0
        drawn[weights] = (tmp_path / f"{weights}.png").read_bytes()
    assert drawn["evaluated"] == drawn["average"] != drawn["last"]


def test_a_picture_is_written_over_nothing_else(few_images, tmp_path, run_here):
    assert run_here(*command(few_images), cwd=tmp_path).returncode == 0
    (tmp_path / "mine.png").write_bytes(b"\x89PNG a photograph")
    for flags, message in (
        (["--grid", "mine.png"], "this program did not make it"),
        (["--grid", "x.jpg"], "must end in .png"),
        (["--gif", "x.png"], "must end in .gif"),
        (["--weights", "average"], "has no moving average"),
    ):
        done = run_here("sample", str(FOLDER), *flags, "--sampler", "ddim", "--steps", "2", cwd=tmp_path)
        assert done.returncode == 2 and message in done.stderr, done.stderr
    assert (tmp_path / "mine.png").read_bytes() == b"\x89PNG a photograph"
