"""golu-vision as a person uses it, and as a person gets it wrong."""

from __future__ import annotations

import json
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import nn

from command_line import runner_in_this_process
from golu_core.training.messages.errors import RequestError
from golu_vision.cli import COMMAND_LINE
from golu_vision.model import check_network
from golu_vision.recipes import RECIPES
from vision_program import FAST, VISION


@pytest.fixture
def run_here(monkeypatch, capfd):
    return runner_in_this_process(COMMAND_LINE, monkeypatch, capfd)


FOLDER = Path("runs/vision/digits/golu/seed0")


@pytest.fixture(scope="module")
def finished(few_digits, tmp_path_factory):
    cwd = tmp_path_factory.mktemp("finished")
    done = VISION.run("train", "digits", "--data.root", str(few_digits), "--epochs", "2", *FAST, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd, done


def test_a_finished_run_has_all_its_files(finished):
    cwd, done = finished
    assert "everything is in runs/vision/digits/golu/seed0" in done.stdout
    assert "predict      golu-vision predict runs/vision/digits/golu/seed0 IMAGE\n" in done.stdout
    result = json.loads((cwd / FOLDER / "result.json").read_text())
    assert result["schema"] == "golu-result/1" and result["steps"] == 8
    assert result["activations"] == {"swapped": 19, "left": []}
    assert set(result["metrics"]) == {"top1", "top5", "loss"}
    assert (cwd / FOLDER / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (cwd / FOLDER / "samples" / "worst.png").read_bytes().startswith(b"\x89PNG")
    weights = load_file(cwd / FOLDER / "model.safetensors")
    assert sum(value.numel() for name, value in weights.items() if "running" not in name) > 270_000
    lines = [json.loads(line) for line in (cwd / FOLDER / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 4, 5, 6, 7, 8, 8]
    assert [line["split"] for line in lines].count("test") == 2


def test_evaluate_prints_the_metrics_of_the_result(finished, run_here):
    cwd, _ = finished
    result = json.loads((cwd / FOLDER / "result.json").read_text())
    done = run_here("evaluate", str(FOLDER), "--eval-batch", "7", cwd=cwd)
    assert done.returncode == 0, done.stderr
    printed = dict(line.split() for line in done.stdout.splitlines())
    for name, value in result["metrics"].items():
        assert float(printed[name]) == pytest.approx(value, rel=1e-5)


@pytest.mark.slow
def test_two_processes_evaluate_alike(finished):
    cwd, _ = finished
    one, two = (VISION.run("evaluate", str(FOLDER), cwd=cwd, processes=n) for n in (1, 2))
    assert two.returncode == 0, two.stderr
    assert one.stdout == two.stdout


def test_the_same_command_says_that_it_is_finished(finished, few_digits, run_here):
    cwd, _ = finished
    before = {p: p.stat().st_mtime_ns for p in cwd.rglob("*")}
    done = run_here("train", "digits", "--data.root", str(few_digits), "--epochs", "2", *FAST, cwd=cwd)
    assert done.returncode == 0 and "finished already: top1" in done.stdout
    assert {p: p.stat().st_mtime_ns for p in cwd.rglob("*")} == before


def test_a_run_of_another_config_is_not_touched(finished, few_digits, run_here):
    cwd, _ = finished
    before = {p: p.stat().st_mtime_ns for p in cwd.rglob("*")}
    wrong = ["--data.root", str(few_digits), "--epochs", "3", "--optim.lr", "0.05", *FAST]
    done = run_here("train", "digits", *wrong, cwd=cwd)
    assert done.returncode == 2
    assert "epochs: 2 there, 3 asked for" in done.stderr and "optim.lr: 0.1 there, 0.05 asked for" in done.stderr
    assert "--overwrite" in done.stderr
    assert {p: p.stat().st_mtime_ns for p in cwd.rglob("*")} == before


def test_dry_run_writes_nothing(few_digits, tmp_path, run_here):
    done = run_here("train", "digits", "--data.root", str(few_digits), "--dry-run", "--check-data", *FAST, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for part in ("272,", "relu swapped for golu", "52 training and 23 test images", "all 75 images can be decoded"):
        assert part in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_dry_run_of_the_sample_writes_nothing_either(tmp_path, run_here):
    done = run_here("train", "digits", "--dry-run", "--check-data", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "all 1,797 images can be decoded" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name != "digits"])
def test_every_recipe_can_be_described_without_data(recipe, tmp_path, run_here):
    done = run_here("train", recipe, "--dry-run", "--mixed-precision", "no", cwd=tmp_path)
    assert done.returncode == (0 if recipe.endswith("digits") else 2), done.stderr
    assert f"{RECIPES[recipe].paper.size:,} parameters" in done.stdout


@pytest.mark.parametrize(
    ("head", "found"),
    [(nn.Flatten(), "returns shape (2, 3072)"), (nn.AdaptiveAvgPool2d((1, 5)), "returns shape (2, 3, 1, 5)")],
)
def test_a_network_without_classes_is_refused(head, found):
    config = replace(RECIPES["digits"], data=replace(RECIPES["digits"].data, size=32))
    with pytest.raises(RequestError, match=re.escape(found)):
        check_network(nn.Sequential(nn.ReLU(), head), config, 2, 5)


UNTRAINABLE = [
    ("torchvision/vit_b_16", ["--data.size", "64"], "Wrong image height! Expected 224 but got 64!"),
    ("torchvision/resnet18", ["--data.size", "32", "--batch-size", "1"], "Expected more than 1 value per channel"),
    ("torchvision/raft_large", [], "unknown model 'torchvision/raft_large'"),
    ("torchvision/fcn_resnet50", [], "unknown model 'torchvision/fcn_resnet50'"),
    ("timm/vit_tiny_patch16_224", ["--data.size", "64"], "Input height (64) doesn't match model (224)"),
    ("timm/resnet18", ["--data.size", "16", "--batch-size", "1"], "Expected more than 1 value per channel"),
    ("timm/resnet18", ["--data.size", "16", "--micro-batch-size", "1"], "Expected more than 1 value per channel"),
]


@pytest.mark.parametrize(("model", "flags", "message"), UNTRAINABLE)
def test_a_network_that_cannot_be_trained_is_refused(model, flags, message, few_digits, tmp_path, run_here):
    """Also by a dry run, which `run_here` compares."""
    flags = ["--data.root", str(few_digits), "--model.name", model, "--batch-size", "4", *flags]
    own = ["--model.default-activation", "gelu" if "vit" in model else "relu"]
    done = run_here("train", "resnet18-imagenet", *flags, *own, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_dry_run_without_data_says_what_is_missing(tmp_path, run_here):
    done = run_here("train", "densenet121-imagenet", "--dry-run", cwd=tmp_path)
    assert done.returncode == 2 and "there is no data folder data/imagenet" in done.stderr
    assert "data         missing" in done.stdout
    assert "relu called in the model's own forward" in done.stdout
    assert "450,450 of 256 images" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["train", "digit"], ["unknown recipe 'digit', did you mean 'digits'"]),
        (["trian", "digits"], ["unknown command 'trian', did you mean 'train'"]),
        (["train", "digits", "--activation", "gollu"], ["unknown activation 'gollu': did you mean 'golu'"]),
        (["train", "digits", "--optim.rl", "1"], ["--optim.rl", "--optim.lr"]),
        (["train", "digits", "--batch-size", "two"], ["--batch-size"]),
        (["train", "digits", "--batch-size", "5000"], ["batch of 5000 is larger than the training set of 1442"]),
        (["train", "digits", "--max-steps", "0"], ["--max-steps must be at least 1"]),
        (["train", "digits", "--data.root", "nowhere"], ["no data folder nowhere", "nowhere/train/<class>/*.jpg"]),
        (["train", "resnet50-imagenet"], ["no data folder data/imagenet", "www.image-net.org"]),
        (["train", "resnet20-cifar10"], ["CIFAR-10 is not in data/cifar10", "--data.download"]),
        (["train", "digits", "--model.name", "cifar/resnet21"], ["unknown model 'cifar/resnet21'"]),
        (["train", "digits", "--mixed-precision", "fp16"], ["fp16 needs a GPU"]),
        (["train", "digits", "--tracker", "wandb"], ["pip install wandb"]),
        (["train", "digits", "--mix.mixup", "0.2", "--batch-size", "12"], ["blocks of 8"]),
        (["evaluate", "runs/nothing"], ["no run folder runs/nothing"]),
        (["evaluate", "."], ["no config.json"]),
    ],
)
def test_a_wrong_request_is_refused(arguments, messages, tmp_path, run_here):
    done = run_here(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    text = re.sub(r"[│\s]+", " ", done.stderr + done.stdout)
    for message in messages:
        assert message in text
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def damaged_copy(few_digits, tmp_path, damage):
    root = tmp_path / "own"
    shutil.copytree(few_digits, root)
    damage(root)
    return root


def truncate(root):
    path = sorted((root / "train" / "2").iterdir())[3]
    path.write_bytes(path.read_bytes()[:40])
    path.rename(path.with_name("broken.png"))


def empty_class(root):
    for path in (root / "train" / "1").iterdir():
        path.unlink()


def no_test_split(root):
    shutil.rmtree(root / "test")


def surplus_class(root):
    (root / "train" / "0").rename(root / "train" / "zero")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "train/2/broken.png cannot be decoded"),
        (empty_class, "train/1 has no image"),
        (no_test_split, "has no train or no val folder"),
        (surplus_class, "classes that"),
    ],
)
@pytest.mark.parametrize("in_memory", [True, False])
def test_damaged_data_is_named(damage, message, in_memory, few_digits, tmp_path, run_here):
    root = damaged_copy(few_digits, tmp_path, damage)
    flags = [] if in_memory else ["--data.no-in-memory", "--augment", "torchvision", "--num-workers", "1"]
    done = run_here("train", "digits", "--data.root", str(root), "--check-data", *flags, *FAST, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_batch_that_does_not_divide_names_sizes_that_do(few_digits, tmp_path):
    flags = ["--data.root", str(few_digits), "--batch-size", "15"]
    done = VISION.run("train", "digits", *flags, cwd=tmp_path, processes=2)
    assert done.returncode != 0
    assert "use a batch of 14 or 16, or 1, 3, 5, 15 processes" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_loss_that_is_not_finite_stops_the_run(few_digits, tmp_path, run_here):
    flags = [
        "--data.root",
        str(few_digits),
        "--epochs",
        "3",
        "--optim.lr",
        "1e18",
        "--schedule",
        "constant",
        *FAST,
    ]
    done = run_here("train", "digits", *flags, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert re.search(
        r"the loss of step 2 is (nan|inf) at learning rate 1e\+18; there is no earlier checkpoint", done.stderr
    )
    assert "Traceback" not in done.stderr
    lines = [json.loads(line) for line in (tmp_path / FOLDER / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1]
    assert not (tmp_path / FOLDER / "result.json").exists()


def test_a_disk_that_cannot_be_written_is_said(few_digits, tmp_path, run_here):
    (tmp_path / "file").write_text("in the way")
    flags = ["--data.root", str(few_digits), "--output-dir", "file/runs", *FAST]
    done = run_here("train", "digits", *flags, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "cannot be written" in done.stderr and "Traceback" not in done.stderr


def test_overwrite_and_trackers(few_digits, tmp_path, run_here):
    flags = ["--data.root", str(few_digits), "--max-steps", "2", *FAST]
    assert run_here("train", "digits", *flags, cwd=tmp_path).returncode == 0
    again = run_here("train", "digits", *flags, "--seed", "0", "--overwrite", "--tracker", "tensorboard", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "finished: top1" in again.stdout
    assert list((tmp_path / FOLDER).rglob("events.out.tfevents*"))


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--help"], ["recipes"], ["train", "digits", "--help"]])
def test_help_and_recipes_answer_at_once(arguments, tmp_path):
    VISION.run(*arguments, cwd=tmp_path)  # compiles bytecode
    start = time.monotonic()
    done = VISION.run(*arguments, cwd=tmp_path)
    assert time.monotonic() - start < 2
    assert done.returncode == 0
    assert "digits" in done.stdout


@pytest.mark.slow
def test_mixed_precision_accumulation_and_average(few_digits, tmp_path):
    flags = ["--data.root", str(few_digits), "--epochs", "2", "--mixed-precision", "bf16", "--micro-batch-size", "8"]
    flags += ["--average.decay", "0.5", "--mix.mixup", "0.2", "--mix.cutmix", "1.0", "--mix.group", "8", "--clip", "1"]
    done = VISION.run("train", "digits", *flags, *FAST, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / FOLDER / "model_ema.safetensors").exists()
    shown = VISION.run("evaluate", str(FOLDER), cwd=tmp_path).stdout
    result = json.loads((tmp_path / FOLDER / "result.json").read_text())
    assert float(shown.split()[1]) == pytest.approx(result["metrics"]["top1"], rel=1e-4)


@pytest.mark.slow
def test_digits_reaches_98_percent(tmp_path):
    done = VISION.run("train", "digits", cwd=tmp_path, OMP_NUM_THREADS="2")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / FOLDER / "result.json").read_text())
    assert result["metrics"]["top1"] >= 98
    assert result["data"]["as_published"]
