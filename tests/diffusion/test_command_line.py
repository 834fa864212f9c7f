"""golu-diffusion as a person uses it, and as a person gets it wrong."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy
import pytest
import torch
from PIL import Image

from command_line import runner_in_this_process
from diffusion_program import DIFFUSION, FOLDER, TINY
from golu_core.training.data.orders import SampleKey
from golu_core.training.data.seeding import Purpose, generator
from golu_diffusion.cli import COMMAND_LINE
from golu_diffusion.data import load_data
from golu_diffusion.recipes import RECIPES


@pytest.fixture
def run_here(monkeypatch, capfd):
    return runner_in_this_process(COMMAND_LINE, monkeypatch, capfd)


@pytest.fixture(scope="module")
def finished(few_images, tmp_path_factory):
    cwd = tmp_path_factory.mktemp("finished")
    done = DIFFUSION.run("train", "ddpm-digits", "--data.images", str(few_images), *TINY, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd, done


def test_a_finished_run_has_all_its_files(finished):
    cwd, _ = finished
    result = json.loads((cwd / FOLDER / "result.json").read_text())
    assert (result["task"], result["steps"], result["dataset"]) == ("diffusion", 6, "few")
    assert result["activations"] == {"swapped": 26, "left": []}
    assert set(result["metrics"]) == {"loss", "loss_standard_error"}
    assert result["data"]["train"] == 63 and result["data"]["test"] == 7
    assert result["primary_metric"]["higher_is_better"] is False
    for epoch in (1, 2):
        assert Image.open(cwd / FOLDER / "samples" / f"epoch-00{epoch}.png").size == (134, 134)
    lines = [json.loads(line) for line in (cwd / FOLDER / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 3, 4, 5, 6, 6]


def test_evaluate_prints_the_metrics_of_the_result(finished, run_here):
    cwd, _ = finished
    metrics = json.loads((cwd / FOLDER / "result.json").read_text())["metrics"]
    done = run_here("evaluate", str(FOLDER), "--eval-batch", "3", cwd=cwd)
    assert done.returncode == 0, done.stderr
    printed = dict(line.split() for line in done.stdout.splitlines())
    for name, value in metrics.items():
        assert float(printed[name]) == pytest.approx(value, rel=1e-5)


@pytest.mark.slow
def test_two_processes_evaluate_and_sample_alike(finished):
    cwd, _ = finished
    one, two = (DIFFUSION.run("evaluate", str(FOLDER), cwd=cwd, processes=n) for n in (1, 2))
    assert two.returncode == 0, two.stderr
    assert one.stdout == two.stdout
    for processes in (1, 2):
        flags = ["--count", "5", "--exact", "--grid", f"by{processes}.png"]
        done = DIFFUSION.run("sample", str(FOLDER), *flags, cwd=cwd, processes=processes)
        assert done.returncode == 0, done.stderr
    assert (cwd / "by1.png").read_bytes() == (cwd / "by2.png").read_bytes()


def test_sample_writes_grid_images_and_film(finished, run_here):
    cwd, _ = finished
    flags = ["--count", "5", "--sampler", "ddim", "--steps", "4", "--out", "drawn", "--gif", "film.gif"]
    done = run_here("sample", str(FOLDER), *flags, "--batch-size", "2", "--exact", cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert len(list((cwd / "drawn").glob("*.png"))) == 5
    assert Image.open(cwd / "film.gif").n_frames > 2
    one = (cwd / "samples.png").read_bytes()
    run_here("sample", str(FOLDER), *flags[:6], "--exact", cwd=cwd)
    assert (cwd / "samples.png").read_bytes() == one
    run_here("sample", str(FOLDER), *flags[:6], "--exact", "--seed", "1", cwd=cwd)
    assert (cwd / "samples.png").read_bytes() != one
    for size in ("1", "3"):
        run_here("sample", str(FOLDER), *flags[:6], "--batch-size", size, "--grid", f"by{size}.png", cwd=cwd)
    run_here("sample", str(FOLDER), *flags[:6], "--exact", cwd=cwd)
    grids = [numpy.asarray(Image.open(cwd / name)).astype(int) for name in ("samples.png", "by1.png", "by3.png")]
    assert max(abs(grids[0] - other).max() for other in grids[1:]) <= 1


# flags of `sample`, and whether the picture is another one than without them
NOISE_FLAGS = {
    "one step": (["--sampler", "ddim", "--steps", "1"], True),
    "eta": (["--sampler", "ddim", "--steps", "4", "--eta", "1"], True),
    "variance": (["--variance", "posterior"], True),
    "the variance by default": (["--variance", "beta"], False),
}


@pytest.mark.parametrize("case", NOISE_FLAGS)
def test_each_flag_of_the_noise_changes_the_picture(case, finished, run_here):
    cwd, _ = finished
    flags, changes = NOISE_FLAGS[case]
    plain = flags[:2] if "ddim" in flags else []
    plain += ["--steps", "4"] if plain else []
    grids = []
    for name, given in (("with.png", flags), ("without.png", plain)):
        done = run_here("sample", str(FOLDER), "--count", "2", "--grid", name, *given, cwd=cwd)
        assert done.returncode == 0, done.stderr
        grids.append((cwd / name).read_bytes())
    assert (grids[0] != grids[1]) == changes


def test_interpolation_begins_and_ends_with_the_images(finished, few_images, run_here):
    cwd, _ = finished
    paths = [str(path) for path in sorted(few_images.iterdir())[:2]]
    done = run_here("interpolate", str(FOLDER), *paths, "--timestep", "5", "--points", "3", cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert Image.open(cwd / "interpolation.png").size == (5 * 66 + 2, 68)


def write_celeba(root, partition="list_eval_partition.txt", header=""):
    (root / "img_align_celeba").mkdir(parents=True)
    lines = []
    for number in range(12):
        name = f"{number + 1:06d}.jpg"
        Image.fromarray(numpy.full((218, 178, 3), 20 * number, dtype=numpy.uint8)).save(
            root / "img_align_celeba" / name
        )
        lines.append(f"{name}{',' if header else ' '}{number // 4}")
    (root / partition).write_text(header + "\n".join(lines) + "\n")


@pytest.mark.parametrize("layout", ["plain", "torchvision", "csv"])
def test_celeba_is_read_by_its_partition(layout, tmp_path, run_here):
    root = tmp_path / "data" / "celeba" / ("celeba" if layout == "torchvision" else "")
    csv = {"partition": "list_eval_partition.csv", "header": "image_id,partition\n"} if layout == "csv" else {}
    write_celeba(root, **csv)
    done = run_here(
        "train",
        "ddpm-celeba",
        "--batch-size",
        "4",
        "--mixed-precision",
        "no",
        "--dry-run",
        "--check-data",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "4 training, 4 test images" in done.stdout and "all 8 images" in done.stdout
    assert "celeba has 4 train images, the recipe's own data have 162,770" in done.stderr


def test_a_saved_copy_of_the_hub(tmp_path, run_here):
    import datasets

    pictures = [Image.fromarray(numpy.full((20, 20, 3), n, dtype=numpy.uint8)) for n in range(6)]
    features = datasets.Features({"image": datasets.Image()})
    split = datasets.Dataset.from_dict({"image": pictures}, features=features)
    splits = {"train": split, "test": split, "valid": split.select(range(2))}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    flags = ["--data.hub", "saved", "--batch-size", "4", "--mixed-precision", "no", "--dry-run", "--check-data"]
    done = run_here("train", "ddpm-celeba", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "6 training, 2 test images" in done.stdout
    assert "the test images are those of saved's split valid; test is not used" in done.stderr


@pytest.mark.parametrize("training", [True, False])
def test_noise_is_that_of_a_generator_for_each_image(training, few_images):
    """Whatever the batch: the buffer and the generator that are used again change no number."""
    config = RECIPES["ddpm-digits"]
    data = load_data(replace(config, data=replace(config.data, images=few_images)))
    split = data.train if training else data.test
    keys = [SampleKey(k, 3, 7 + k) for k in range(5)]
    batch = split.__getitems__(keys)
    for row, key in enumerate(keys):
        purpose = (Purpose.DIFFUSE, key.epoch, key.position) if training else (Purpose.TEST_DIFFUSE, key.sample)
        random = generator(config.seed, *purpose)
        flipped = training and config.data.flip and bool(torch.rand((), generator=random) < 0.5)
        image = split.image(key.sample // split.draws)
        assert torch.equal(batch.images[row], image.flip(-1) if flipped else image)
        assert batch.steps[row] == torch.randint(config.noise.steps, (), generator=random)
        assert torch.equal(batch.noise[row], torch.randn(image.shape, generator=random))


def test_noise_of_a_test_image_is_the_same_in_every_run_of_a_seed(few_images):
    config = replace(RECIPES["ddpm-digits"], eval_noise_draws=4)
    made = [
        load_data(replace(config, data=replace(config.data, images=few_images), activation=name, seed=seed))
        for name, seed in (("golu", 0), ("relu", 0), ("golu", 1))
    ]
    batches = [data.test.__getitems__([SampleKey(k, -1, k) for k in range(8)]) for data in made]
    assert torch.equal(batches[0].noise, batches[1].noise) and torch.equal(batches[0].steps, batches[1].steps)
    assert not torch.equal(batches[0].noise, batches[2].noise)
    assert len(batches[0].steps.unique()) > 3
    assert torch.equal(batches[0].images[0], batches[0].images[3])  # four draws of one image


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_can_be_described_without_data(recipe, tmp_path, run_here):
    done = run_here("train", recipe, "--dry-run", "--mixed-precision", "no", cwd=tmp_path)
    is_there = recipe == "ddpm-digits"
    assert done.returncode == (0 if is_there else 2), done.stderr
    assert ("data         missing" in done.stdout) != is_there
    assert not list(tmp_path.iterdir())


WRONG = [
    (
        ["train", "ddpm-celeba", "--mixed-precision", "no"],
        ["there is no CelebA in data/celeba", "list_eval_partition.txt"],
    ),
    (["train", "ddpm-digits", "--data.size", "18"], ["cannot be halved 2 times"]),
    (["train", "ddpm-digits", "--data.images", "absent"], ["there is no image folder absent"]),
    (["train", "ddpm-digits", "--data.images", "empty"], ["the folder empty has no image"]),
    (["train", "ddpm-digits", "--data.images", "torn", "--check-data"], ["cannot be decoded", "05.png"]),
    (["train", "ddpm-digits", "--noise.steps", "0"], ["--noise.steps must be at least 1"]),
    (["train", "ddpm-digits", "--sample-steps", "2000"], ["not between 1 and the 1000"]),
    (["train", "ddpm-digits", "--eval-noise-draws", "0"], ["--eval-noise-draws must be at least 1"]),
    (["train", "ddpm-digits", "--fid-images", "10"], ["pip install 'golu-diffusion[fid]'"]),
    (["train", "ddpm-digits", "--model.groups", "5"], ["--model.groups 5 does not divide"]),
    (["train", "ddpm-digits", "--data.hub", "./nowhere"], ["datasets cannot load"]),
    (["sample", "nowhere"], ["there is no run folder nowhere"]),
    (["interpolate", "nowhere", "one.png"], ["Missing from golu-diffusion interpolate"]),
    (["evaluate", "nowhere"], ["no run folder nowhere"]),
]


@pytest.mark.parametrize(("arguments", "messages"), WRONG, ids=lambda value: " ".join(value)[:60])
def test_a_wrong_request_is_refused(arguments, messages, tmp_path, few_images, run_here):
    (tmp_path / "empty").mkdir()
    shutil.copytree(few_images, tmp_path / "torn")
    victim = sorted((tmp_path / "torn").glob("*5.png"))[0]
    victim.rename(tmp_path / "torn" / "05.png").write_bytes(b"\x89PNG nothing")
    before = sorted(tmp_path.rglob("*"))
    done = run_here(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stdout
    for message in messages:
        assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_folder_of_another_architecture_is_refused(finished, tmp_path, run_here):
    cwd, _ = finished
    shutil.copytree(cwd / FOLDER, tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    config["model"]["width"] = 16
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    done = run_here("sample", "other", "--sampler", "ddim", "--steps", "2", cwd=tmp_path)
    assert done.returncode == 2
    assert "config.json is not the config that result.json names" in done.stderr
    done = run_here("sample", str(cwd / FOLDER), "--sampler", "ddim", "--steps", "21", cwd=tmp_path)
    assert "not between 1 and the 20" in done.stderr
