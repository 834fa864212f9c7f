"""`golu-diffusion sample --out`: images as they were drawn, written one by one, and continued after a stop."""

from __future__ import annotations

import json
import shutil

import numpy
import pytest
import scipy.linalg
import torch
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from command_line import runner_in_this_process
from diffusion_program import FOLDER, TINY
from golu_core.training.loop.evaluation import Evaluation
from golu_core.training.runs.finished import FinishedRun
from golu_core.training.storage.ownership import MADE_BY
from golu_diffusion import drawing, sample
from golu_diffusion.cli import COMMAND_LINE
from golu_diffusion.config import DiffusionConfig
from golu_diffusion.diffusion import Diffusion
from golu_diffusion.drawn_folder import MARKER, DrawnFolder
from golu_diffusion.evaluate import load_run

COUNT = 7
FLAGS = ["--count", str(COUNT), "--batch-size", "3", "--sampler", "ddim", "--steps", "2"]


@pytest.fixture
def run_here(monkeypatch, capfd):
    return runner_in_this_process(COMMAND_LINE, monkeypatch, capfd)


@pytest.fixture(scope="module")
def run(few_images, tmp_path_factory):
    cwd = tmp_path_factory.mktemp("sampled")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        flags = ["--data.images", str(few_images), *TINY, "--average.decay", "0.9", "--max-steps", "2"]
        assert COMMAND_LINE.main(["train", "ddpm-digits", *flags]) == 0
    return cwd / FOLDER


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """What is drawn without a stop."""
    cwd = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        assert COMMAND_LINE.main(["sample", str(run), *FLAGS, "--out", "out", "--gif", "film.gif"]) == 0
    return cwd


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def frechet(first: numpy.ndarray, second: numpy.ndarray) -> float:
    """The Fréchet distance of two sets of features, (N, D)."""
    covariances = [numpy.cov(part, rowvar=False) for part in (first, second)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    return float(((first.mean(0) - second.mean(0)) ** 2).sum() + numpy.trace(sum(covariances) - 2 * root))


def test_single_images_are_as_drawn(run, whole, tmp_path, monkeypatch):
    """So that a distance to other images is that of the images in memory."""
    finished = FinishedRun.at(run, DiffusionConfig)
    with Evaluation(finished.config, run) as evaluation:
        diffusion = Diffusion(finished.config.noise)
        sampling = drawing.Sampling("ddim", 2, 0, 3)
        shape = finished.config.data.shape
        in_memory = drawing.draw(evaluation.processes, load_run(finished), diffusion, shape, COUNT, sampling)
    read = [pil_to_tensor(Image.open(path)) for path in sorted((whole / "out").glob("*.png"))]
    assert torch.equal(torch.stack(read), in_memory)
    others = numpy.random.default_rng(0).normal(100, 30, (20, 12))
    features = [torch.stack(list(part))[:, :, ::8, ::8].flatten(1).double().numpy() for part in (read, in_memory)]
    assert frechet(features[0], others) == frechet(features[1], others)


class Stopped(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("written", range(COUNT))
def test_a_stopped_command_continues(written, run, whole, tmp_path, run_here, monkeypatch):
    writes, batches = [], []
    write, sampled = DrawnFolder.write, drawing.sampled

    def counted(folder, number, image):
        if len(writes) == written:
            raise Stopped
        writes.append(number)
        write(folder, number, image)

    monkeypatch.setattr(DrawnFolder, "write", counted)
    with pytest.raises(Stopped):
        run_here("sample", str(run), *FLAGS, "--out", "out", cwd=tmp_path)
    there = contents(tmp_path / "out") if written else {}
    assert sorted(there) == ([f"{n:06d}.png" for n in range(written)] + [MARKER] if written else [])
    assert written or not (tmp_path / "out").exists()

    monkeypatch.setattr(DrawnFolder, "write", write)
    monkeypatch.setattr(drawing, "sampled", lambda *a, **k: batches.append(a[2]) or sampled(*a, **k))
    done = run_here("sample", str(run), *FLAGS, "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert ("continuing: " in done.stdout) == (written > 0)
    assert len(batches) == 3 - written // 3
    assert contents(tmp_path / "out") == contents(whole / "out")
    assert (tmp_path / "samples.png").read_bytes() == (whole / "samples.png").read_bytes()


def test_what_is_whole_is_not_drawn_again(run, whole, tmp_path, run_here, monkeypatch):
    shutil.copytree(whole / "out", tmp_path / "out")
    batches = []
    sampled = drawing.sampled
    monkeypatch.setattr(drawing, "sampled", lambda *a, **k: batches.append(a[2]) or sampled(*a, **k))
    assert run_here("sample", str(run), *FLAGS, "--out", "out", cwd=tmp_path).returncode == 0
    assert not batches
    assert (tmp_path / "samples.png").read_bytes() == (whole / "samples.png").read_bytes()
    assert run_here("sample", str(run), *FLAGS, "--out", "out", "--gif", "film.gif", cwd=tmp_path).returncode == 0
    assert len(batches) == 1  # the film is of the first batch
    assert (tmp_path / "film.gif").read_bytes() == (whole / "film.gif").read_bytes()


OTHER = {
    "--seed": ["--seed", "1"],
    "--count": ["--count", "8"],
    "--batch-size": ["--batch-size", "2"],
    "--steps": ["--steps", "3"],
    "--eta": ["--eta", "0.5"],
    "--clip": ["--no-clip"],
    "--exact": ["--exact"],
    "weights": ["--weights", "last"],
}


@pytest.mark.parametrize("name", OTHER)
def test_images_of_other_settings_are_not_mixed(name, run, whole, tmp_path, run_here):
    shutil.copytree(whole / "out", tmp_path / "out")
    done = run_here("sample", str(run), *FLAGS, *OTHER[name], "--out", "out", cwd=tmp_path)
    assert done.returncode == 2 and f"with {'other weights' if name == 'weights' else name}" in done.stderr
    assert contents(tmp_path / "out") == contents(whole / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_exact_images_do_not_depend_on_their_number(run, tmp_path, run_here):
    for count in ("2", "5"):
        done = run_here("sample", str(run), *FLAGS, "--exact", "--count", count, "--out", "grown", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert run_here("sample", str(run), *FLAGS, "--exact", "--count", "5", "--out", "new", cwd=tmp_path).returncode == 0
    assert contents(tmp_path / "grown") == contents(tmp_path / "new")


def foreign_folder(place):
    (place / "out").mkdir()
    (place / "out" / "mine.txt").write_text("x")


def foreign_image(place):
    Image.new("RGB", (4, 4)).save(place / "out" / "000000.png")


@pytest.mark.parametrize("make", [foreign_folder, foreign_image])
def test_what_is_not_ours_stays(make, run, whole, tmp_path, run_here):
    if make is foreign_image:
        shutil.copytree(whole / "out", tmp_path / "out")
    make(tmp_path)
    before = contents(tmp_path / "out")
    done = run_here("sample", str(run), *FLAGS, "--out", "out", cwd=tmp_path)
    assert done.returncode == 2 and "out" in done.stderr
    assert contents(tmp_path / "out") == before and not (tmp_path / "samples.png").exists()


@pytest.mark.parametrize("flag", ["--out", "--grid", "--gif"])
@pytest.mark.parametrize("place", ["file", "system"])
def test_a_place_that_cannot_be_written_is_noticed_before_anything_is_drawn(
    flag, place, run, tmp_path, run_here, monkeypatch
):
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr(drawing, "sampled", lambda *a, **k: pytest.fail("images were drawn"))
    monkeypatch.setattr(sample, "sampled", lambda *a, **k: pytest.fail("images were drawn"))
    parent = "file" if place == "file" else "/proc/self"  # where even root writes nothing
    path = f"{parent}/new/x{'' if flag == '--out' else '.png' if flag == '--grid' else '.gif'}"
    done = run_here("sample", str(run), *FLAGS, flag, path, cwd=tmp_path)
    assert done.returncode in (1, 2) and parent in done.stderr and "Traceback" not in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    if flag == "--grid":
        Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
        done = run_here("interpolate", str(run), "a.png", "a.png", "--timestep", "3", flag, path, cwd=tmp_path)
        assert done.returncode in (1, 2) and parent in done.stderr


def test_a_second_command_does_not_draw_into_the_same_folder(run, tmp_path, run_here):
    from golu_diffusion.drawn_folder import only_here

    with only_here(tmp_path / "out"):
        done = run_here("sample", str(run), *FLAGS, "--out", "out", cwd=tmp_path)
    assert done.returncode == 2 and "another process draws into out" in done.stderr


def test_many_images_need_a_folder(run, whole, tmp_path, run_here, monkeypatch):
    monkeypatch.setattr(sample, "_MOST_IN_GRID", 4)
    done = run_here("sample", str(run), *FLAGS, cwd=tmp_path)
    assert done.returncode == 2 and "--out" in done.stderr and not list(tmp_path.iterdir())
    done = run_here("sample", str(run), *FLAGS, "--out", "out", cwd=tmp_path)
    assert done.returncode == 0 and "with the first 4" in done.stdout
    assert contents(tmp_path / "out") == contents(whole / "out")
    assert Image.open(tmp_path / "samples.png").size == (134, 134)


def test_the_marker_says_what_the_images_follow_from(whole):
    values = json.loads((whole / "out" / MARKER).read_text())
    assert values["format"] == "golu-samples/1" and values["--seed"] == 0 and len(values["weights"]) == 64
    assert all(MADE_BY.encode() in path.read_bytes() for path in (whole / "out").glob("*.png"))
