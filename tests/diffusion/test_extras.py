"""An extra that fails costs no run, and pictures are drawn from the weights that the metric is of."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import pytest
import torch

from command_line import runner_in_this_process
from diffusion_program import FOLDER, TINY
from golu_diffusion.cli import COMMAND_LINE
from traps import Trap


@pytest.fixture
def run_here(monkeypatch, capfd):
    monkeypatch.setattr(
        "matplotlib.figure.Figure.savefig", lambda figure, path, **options: path.write_bytes(b"picture")
    )
    return runner_in_this_process(COMMAND_LINE, monkeypatch, capfd)


@pytest.fixture
def fidelity(monkeypatch, tmp_path_factory):
    """torch-fidelity's place, taken by a module of the test's, which unpickles its weights as torch-fidelity does."""
    names = ("torch_fidelity", "torch_fidelity.utils", "torch_fidelity.feature_extractor_inceptionv3")
    module, utils, inception = (types.ModuleType(name) for name in names)
    module.__spec__ = types.SimpleNamespace()
    published = tmp_path_factory.mktemp("published") / "weights-inception.pth"
    torch.save({"weight": torch.ones(2)}, published)
    inception.URL_INCEPTION_V3 = published.as_uri()
    monkeypatch.setenv("TORCH_HOME", str(published.parent / "home"))

    def unpickle(*names, feature_extractor_weights_path, **options):
        assert set(torch.load(feature_extractor_weights_path, weights_only=False)) == {"weight"}

    utils.create_feature_extractor = unpickle
    module.calculate_metrics = lambda **options: unpickle(**options) or {"frechet_inception_distance": 12.5}
    module.utils = utils
    for name, fake in zip(names, (module, utils, inception), strict=True):
        monkeypatch.setitem(sys.modules, name, fake)
    return module


def command(images, *more):
    return ["train", "ddpm-digits", "--data.images", str(images), *TINY, "--epochs", "1", *more]


def test_the_distance_is_added_to_a_result_that_is_written(fidelity, few_images, tmp_path, run_here):
    done = run_here(*command(few_images, "--fid-images", "3"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / FOLDER / "result.json").read_text())["metrics"]
    assert metrics["fid"] == 12.5 and metrics["fid_images"] == 3
    assert run_here("evaluate", str(FOLDER), cwd=tmp_path).returncode == 0


def test_the_distance_of_a_finished_run_is_that_of_training(fidelity, few_images, tmp_path, run_here):
    compared = []

    def distance(input1, input2, **options):
        pictures = [sorted(Path(folder).iterdir()) for folder in (input1, input2)]
        compared.append([[path.read_bytes() for path in listed] for listed in pictures])
        return {"frechet_inception_distance": 12.5}

    fidelity.calculate_metrics = distance
    assert run_here(*command(few_images, "--fid-images", "3"), cwd=tmp_path).returncode == 0
    before = (tmp_path / FOLDER / "result.json").read_bytes()
    done = run_here("evaluate", str(FOLDER), "--fid-images", "3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "fid 12.5, of 3 drawn images" in done.stdout and "FID of 3 images is too high" in done.stderr
    assert compared[0] == compared[1] and len(compared[0][0]) == 3
    assert (tmp_path / FOLDER / "result.json").read_bytes() == before
    done = run_here("evaluate", str(FOLDER), "--fid-weights", "weights.pth", cwd=tmp_path)
    assert done.returncode == 2 and "used only with --fid-images" in done.stderr
    done = run_here("evaluate", str(FOLDER), "--fid-images", "3", "--fid-weights", "gone.pth", cwd=tmp_path)
    assert done.returncode == 2 and "gone.pth" in done.stderr


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


@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_weights_of_the_distance_run_no_code(dry, fidelity, few_images, tmp_path, run_here):
    """torch-fidelity is given a file that this program has written, for it would run what is in this one."""
    torch.save({"weight": Trap(tmp_path / "marker")}, tmp_path / "weights.pth")
    given = ["--fid-images", "3", "--fid-weights", "weights.pth", *dry]
    done = run_here(*command(few_images, *given), cwd=tmp_path)
    assert not (tmp_path / "marker").exists()
    assert done.returncode == 2 and "holds more than tensors" in done.stderr and "Traceback" not in done.stderr
    torch.save({"weight": torch.zeros(2)}, tmp_path / "weights.pth")
    assert run_here(*command(few_images, *given), cwd=tmp_path).returncode == 0


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
