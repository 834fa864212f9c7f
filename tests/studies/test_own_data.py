"""Recipes for data of the user's own, of every task: what they choose, that flags override it, and what is refused."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from pydoc_data.topics import topics
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from command_line import environment, runner_in_this_process
from golu_core.studies.sweeping.study import planned_runs, study_from
from golu_core.training.config.identity import identity
from golu_core.training.config.own_data import cut_batch, passes, power_of_two, with_test_share
from golu_core.training.data.digits import write_digits
from golu_core.training.messages.errors import RequestError
from golu_core.training.tasks.command_line import CommandLine
from golu_core.training.tasks.task import installed_tasks, recipes_of, task_of
from golu_detect.samples import write_digit_scenes

OWN = [name for task in installed_tasks().values() for name in task.own_data]
SEEN_ONCE = [name for name in OWN if name != "text"]  # whose batches do not have a sample twice
NAMES_DATA = {
    "images": "--data.root",
    "text": "--data.text",
    "objects": "--data.root",
    "instances": "--data.root",
    "segments": "--data.root",
    "pictures": "--data.images",
}
# flags that make a run of each a matter of seconds, whatever was chosen
SHORT = {
    "images": ["--epochs", "1"],
    "text": ["--steps", "2", "--model.layers", "1", "--model.width", "16", "--sample-tokens", "4"],
    "objects": ["--epochs", "1"],
    "instances": ["--epochs", "1"],
    "segments": ["--epochs", "1"],
    "pictures": [
        *("--epochs", "1", "--model.width", "8", "--model.groups", "4", "--samples", "1", "--sample-steps", "1"),
        *("--noise.steps", "10", "--eval-noise-draws", "1"),
    ],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Few data of each kind, without a split where that is possible, and the flags that name them."""
    root = tmp_path_factory.mktemp("own")
    write_digits(root / "digits")
    for label in "0123":
        (root / "few" / label).mkdir(parents=True)
        for path in sorted((root / "digits" / "train" / label).iterdir())[:12]:
            shutil.copy(path, root / "few" / label)
    (root / "text.txt").write_text("".join(topics[name] for name in sorted(topics))[:4000])
    scenes = write_digit_scenes(root / "scenes")
    content = json.loads((scenes / "annotations" / "instances_val2017.json").read_text())
    content["images"] = content["images"][:20]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in kept]
    (root / "one").mkdir()
    (root / "one" / "instances.json").write_text(json.dumps(content))
    (root / "one" / "images").mkdir()
    for image in content["images"]:
        shutil.copy(scenes / "val2017" / image["file_name"], root / "one" / "images")
    places = {"images": "few", "text": "text.txt", "pictures": "digits/test"}
    return {name: [NAMES_DATA[name], str(root / places.get(name, "one"))] for name in OWN}


@pytest.fixture
def run_here(monkeypatch, capfd):
    def run(name: str, *flags: str, cwd: Path) -> SimpleNamespace:
        runner: Any = runner_in_this_process(CommandLine(task_of(name)), monkeypatch, capfd)
        found: SimpleNamespace = runner("train", name, *flags, cwd=cwd)
        return found

    return run


def command_line(name: str) -> CommandLine[Any]:
    return CommandLine(task_of(name))


def chosen_flags(said: str) -> list[str]:
    (line,) = [line for line in said.splitlines() if line.startswith("chosen for them: ")]
    return shlex.split(line.removeprefix("chosen for them: "))


def test_every_task_has_one():
    without = {"translation"}  # its recipes are trained on any pairs that were prepared
    assert {task_of(name).name for name in OWN} == set(installed_tasks()) - without
    assert set(OWN) == set(NAMES_DATA) == set(SHORT)
    for task in installed_tasks().values():
        assert set(task.own_data) <= set(task.recipes)


@pytest.mark.parametrize("name", OWN)
def test_what_is_said_is_what_is_chosen(name, data, tmp_path, run_here, monkeypatch):
    """The flags that are printed, typed in, give the same run; and each of them was not the recipe's."""
    done = run_here(name, *data[name], "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{name}: ") and not any(tmp_path.iterdir())
    said = chosen_flags(done.stdout)
    monkeypatch.chdir(tmp_path)
    config = command_line(name).config([name, *data[name]])
    assert command_line(name).config([name, *data[name], *said]) == config
    recipe = recipes_of(task_of(name))[name]
    before, after = identity(recipe), identity(config)
    changed = {key for key, value in after.items() if value != before.get(key)}
    named = {word[2:].replace("-", "_").replace(".no_", ".") for word in said if word.startswith("--")}
    assert named == {key.removesuffix(".kind") for key in changed}
    again = run_here(name, *data[name], *said, "--dry-run", cwd=tmp_path)
    assert again.returncode == 0 and "chosen for them: nothing" not in again.stdout


@pytest.mark.parametrize("name", OWN)
def test_flags_override_what_is_chosen(name, data, tmp_path, run_here, monkeypatch):
    """A batch and a length of the user's own; and what depends on them follows."""
    monkeypatch.chdir(tmp_path)
    config = command_line(name).config([name, *data[name]])
    length = "steps" if name == "text" else "epochs"
    other = getattr(config, length) + 7
    given = command_line(name).config([name, *data[name], "--batch-size", "2", f"--{length}", str(other)])
    assert given.batch_size == 2 and getattr(given, length) == other
    assert given.optim.lr != config.optim.lr or name in ("text", "pictures")
    tuned = command_line(name).config([name, *data[name], "--init-from", "somewhere"])
    assert getattr(tuned, length) < getattr(config, length) or getattr(config, length) == 200
    assert tuned.optim.lr < config.optim.lr
    chosen_rate = command_line(name).config([name, *data[name], "--optim.lr", "0.0123"])
    assert chosen_rate.optim.lr == 0.0123


@pytest.mark.parametrize("name", SEEN_ONCE)
def test_a_flag_with_the_recipes_own_value_is_given_too(name, data, tmp_path, monkeypatch):
    """Then what depends on it follows from it, and not from what would have been chosen."""
    monkeypatch.chdir(tmp_path)
    recipe = recipes_of(task_of(name))[name]
    more, length = [name, *data[name]], str(recipe.epochs)
    chosen, given = (command_line(name).config([*more, *flags]) for flags in ([], ["--epochs", length]))
    assert given.epochs == recipe.epochs != chosen.epochs
    assert given.schedule.warmup != chosen.schedule.warmup


@pytest.mark.parametrize("name", OWN)
def test_a_run_trains_and_is_finished_by_the_same_command(name, data, tmp_path, run_here):
    done = run_here(name, *data[name], *SHORT[name], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (path.parent for path in (tmp_path / "runs").rglob("result.json"))
    config = json.loads((folder / "config.json").read_text())
    assert config["recipe"] == name
    for flag, value in zip(SHORT[name][::2], SHORT[name][1::2], strict=True):
        owner = config
        *path, field = flag.removeprefix("--").replace("-", "_").split(".")
        for part in path:
            owner = owner[part]
        assert str(owner[field]) == value
    done = run_here(name, *data[name], *SHORT[name], cwd=tmp_path)
    assert done.returncode == 0 and "finished already" in done.stdout
    result = json.loads((folder / "result.json").read_text())
    assert result["data"]["as_published"] is False


@pytest.mark.parametrize("name", SEEN_ONCE)
def test_a_batch_larger_than_the_data_is_cut(name, data, tmp_path, run_here):
    done = run_here(name, *data[name], "--batch-size", "1536", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "the batch of 1,536 is reduced to " in done.stdout
    others = {"vision": "digits", "detect": "fasterrcnn-digits", "diffusion": "ddpm-digits"}
    other = others[task_of(name).name]
    flags = ["--batch-size", "1536", "--epochs", "1", "--schedule.warmup", "none"]
    if name != "pictures":
        flags += ["--data.test-share", "0.2"]
    done = run_here(other, *data[name], *flags, cwd=tmp_path)
    assert done.returncode == 2 and "is larger than the training set" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", OWN)
def test_without_data(name, tmp_path, run_here):
    done = run_here(name, cwd=tmp_path)
    assert done.returncode == 2 and f"there is no {'image' if name == 'pictures' else 'data'} folder" in done.stderr
    assert NAMES_DATA[name] in done.stderr
    done = run_here(name, NAMES_DATA[name], "nowhere", cwd=tmp_path)
    assert done.returncode == 2 and "nowhere" in done.stderr
    done = run_here(name, "--help", cwd=tmp_path)
    assert done.returncode == 0 and "--batch-size" in done.stdout
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", OWN)
def test_an_unknown_flag_is_refused(name, data, tmp_path, run_here):
    done = run_here(name, *data[name], "--data.colors", "3", "--data-dir", "d", cwd=tmp_path)
    assert done.returncode == 2 and "--data.colors" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", OWN)
def test_data_in_their_folder_need_no_flag(name, data, tmp_path, run_here):
    if name == "text":
        runner = run_here("text", *data[name], *SHORT[name], cwd=tmp_path)
        assert runner.returncode == 0
        shutil.rmtree(tmp_path / "runs")
        (prepared,) = (path for path in (tmp_path / "data").iterdir() if path.is_dir())
        prepared.rename(tmp_path / "data" / "text")
    else:
        shutil.copytree(data[name][1], tmp_path / "data" / name)
    done = run_here(name, "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{name}: ") and "missing" not in done.stdout


@pytest.mark.parametrize("name", OWN)
def test_a_study_runs_what_the_command_line_would(name, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    key = NAMES_DATA[name].removeprefix("--")
    study = study_from(
        {
            "output_dir": "runs",
            "activations": ["relu", "golu"],
            "seeds": [0, 1],
            "experiment": [{"recipes": [name], "flags": {key: data[name][1]}}],
        },
        "a test",
    )
    runs = planned_runs(study)
    assert len(runs) == 4
    for planned in runs:
        words = planned.command(threads=None)
        assert command_line(name).config(words[words.index("train") + 1 :]) == planned.config


@pytest.mark.parametrize(
    ("side", "size", "network"),
    [
        (8, 32, "cifar/resnet20"),
        (47, 32, "cifar/resnet20"),
        (48, 64, "cifar/resnet20"),
        (100, 128, "torchvision/resnet18"),
        (400, 224, "torchvision/resnet18"),
    ],
)
def test_the_size_of_images_follows_theirs(side, size, network, tmp_path, run_here):
    for label in "ab":
        (tmp_path / "photos" / label).mkdir(parents=True)
        for n in range(10):
            Image.new("RGB", (side + 30, side), (n, 2 * n, 0)).save(tmp_path / "photos" / label / f"{n}.png")
    config = command_line("images").config(["images", "--data.root", str(tmp_path / "photos")])
    assert (config.data.size, config.model.name) == (size, network)
    assert config.data.resize >= size and config.data.test_share == 0.2
    larger = command_line("images").config(["images", "--data.root", str(tmp_path / "photos"), "--data.size", "96"])
    assert larger.data.size == 96 and larger.data.resize >= 96 and larger.model.name == "torchvision/resnet18"


def test_of_data_without_a_split_the_sentence_that_helps_is_said(tmp_path):
    for label, count in (("a", 10), ("b", 1)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for n in range(count):
            Image.new("RGB", (40, 40)).save(tmp_path / "photos" / label / f"{n}.png")
    with pytest.raises(RequestError, match=r"the class b has 1 images, too few for a test share of 0\.2"):
        command_line("images").config(["images", "--data.root", str(tmp_path / "photos")])
    shutil.rmtree(tmp_path / "photos" / "b")
    (tmp_path / "photos" / "train").mkdir()
    with pytest.raises(RequestError, match="has no train or no val folder"):
        command_line("images").config(["images", "--data.root", str(tmp_path / "photos")])


def test_rules():
    assert [power_of_two(x, 2, 64) for x in (0, 1, 3, 4, 63.9, 64, 1000)] == [2, 2, 2, 4, 32, 64, 64]
    assert passes(10_000, 20, 5, 100) == 20 and passes(100, 20, 5, 1000) == 200 and passes(100, 20, 5, 100) == 100
    assert passes(10**8, 20, 5, 100) == 5

    def load(share: float | None) -> float | None:
        if share is None:
            raise RequestError("no split")
        return share

    assert with_test_share(load, None) == (0.2, 0.2) and with_test_share(load, 0.3) == (0.3, 0.3)


@pytest.mark.slow
def test_two_processes_say_it_once_and_agree(data, tmp_path):
    import subprocess
    import sys

    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "golu_vision", "train", "images", *data["images"], "--epochs", "1", "--batch-size", "1536"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("chosen for them: ") == 1 and done.stdout.count("is reduced to") == 1
    assert json.loads(next((tmp_path / "runs").rglob("result.json")).read_text())["world_size"] == 2


def test_a_cut_batch_is_one_that_the_data_fill():
    recipe = recipes_of(task_of("images"))["images"]
    fitted = SimpleNamespace(recipe=recipe, found="", samples=70)
    cut, said = cut_batch(recipe, fitted)  # type: ignore[arg-type]
    assert cut.batch_size == 64 and len(said) == 1
    assert cut_batch(cut, fitted) == (cut, ())  # type: ignore[arg-type]
    assert torch.tensor(cut.batch_size) <= 70
