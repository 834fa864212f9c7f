"""A run's folder: whose it is, what it is, and that damage is found, named and mended, shown by golu-vision."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState
from PIL import Image

from command_line import metrics_without_time, runner_in_this_process, same_outcome
from golu_core.training.storage.locks import claim
from golu_vision.cli import COMMAND_LINE
from vision_program import FAST

FOLDER = Path("runs/vision/digits/golu/seed0")
CHECKPOINTED = ("model.safetensors", "optimizer.pt", "position.json", "metrics.jsonl", "run.json", "manifest.json")


def command(*more: str) -> list[str]:
    return ["train", "digits", "--data.root", "photos", "--epochs", "2", "--keep-checkpoints", "9", *FAST, *more]


@pytest.fixture
def run_here(monkeypatch, capfd):
    monkeypatch.setattr(
        "matplotlib.figure.Figure.savefig", lambda figure, path, **options: path.write_bytes(b"picture")
    )
    return runner_in_this_process(COMMAND_LINE, monkeypatch, capfd)


@pytest.fixture(scope="module")
def trained(few_digits, tmp_path_factory):
    """A folder with pictures and the run of 8 steps that was trained on them; to be copied."""
    cwd = tmp_path_factory.mktemp("trained")
    shutil.copytree(few_digits, cwd / "photos")
    with pytest.MonkeyPatch.context() as patch:  # in this process, for the same number of threads as the others
        patch.chdir(cwd)
        AcceleratorState._reset_state(reset_partial_state=True)
        assert COMMAND_LINE.main(command()) == 0
    return cwd


@pytest.fixture
def data(trained, tmp_path):
    shutil.copytree(trained / "photos", tmp_path / "photos")
    return tmp_path / "photos"


@pytest.fixture
def finished(data, trained, tmp_path):
    shutil.copytree(trained / "runs", tmp_path / "runs")
    return tmp_path / FOLDER


def stopped_after(step: int, finished: Path) -> Path:
    """The run as if it had been killed after a step; the whole one lies beside it."""
    shutil.copytree(finished, finished.with_name("whole"))
    for name in ("result.json", "model.safetensors", "curves.png"):
        (finished / name).unlink()
    for checkpoint in list((finished / "checkpoints").iterdir()):
        if int(checkpoint.name.removeprefix("step-")) > step:
            shutil.rmtree(checkpoint)
    lines = (finished / "metrics.jsonl").read_text().splitlines(keepends=True)
    (finished / "metrics.jsonl").write_text("".join(line for line in lines if json.loads(line)["step"] <= step + 1))
    return finished


@pytest.fixture
def stopped(finished):
    return stopped_after(6, finished)


@pytest.fixture
def stopped_early(finished):
    return stopped_after(4, finished)


def refused(done, *messages: str) -> None:
    assert done.returncode == 2, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    for message in messages:
        assert message in done.stderr, done.stderr


def snapshot(top: Path) -> dict[str, bytes]:
    return {str(p.relative_to(top)): p.read_bytes() for p in top.rglob("*") if p.is_file()}


# ------------------------------------------------------------------------------------------------- what is not removed


@pytest.mark.parametrize(
    "name", [".", "..", "/absolute", "a/b", "", " x", ".hidden", "a\\b", "x" * 300, "tab\tname", "é" * 150]
)
@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_a_data_name_is_one_component(name, dry, tmp_path, run_here):
    (tmp_path / "thesis.tex").write_text("years of work")
    refused(run_here("train", "digits", "--data.name", name, *dry, cwd=tmp_path), "--data.name must be")
    assert snapshot(tmp_path) == {"thesis.tex": b"years of work"}


@pytest.mark.parametrize("name", ["digits", "imagenet", "holiday"])
@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_photographs_at_the_sample_datas_place_stay(name, dry, tmp_path, run_here):
    (tmp_path / "data" / name).mkdir(parents=True)
    (tmp_path / "data" / name / "wedding.jpg").write_bytes(b"the only copy")
    done = run_here("train", "digits", "--data.name", name, *dry, cwd=tmp_path)
    refused(done, "already holds files")
    assert snapshot(tmp_path) == {f"data/{name}/wedding.jpg": b"the only copy"}


def test_overwrite_leaves_a_folder_with_foreign_files(finished, tmp_path, run_here):
    for place in ("thesis.tex", "samples/thesis.tex", "checkpoints/thesis.tex", "checkpoints/step-00000008/thesis.tex"):
        (finished / place).write_text("years of work")
        before = snapshot(tmp_path)
        refused(run_here(*command("--overwrite"), cwd=tmp_path), "thesis.tex", "not a file of the run")
        assert snapshot(tmp_path) == before
        (finished / place).unlink()
    assert run_here(*command("--overwrite"), cwd=tmp_path).returncode == 0


def test_overwrite_goes_through_no_symbolic_link(finished, tmp_path, run_here):
    elsewhere = tmp_path / "elsewhere"
    finished.rename(elsewhere)
    finished.symlink_to(elsewhere)
    before = snapshot(elsewhere)
    for flags in (["--overwrite"], []):
        refused(run_here(*command(*flags), cwd=tmp_path), "symbolic link")
    assert snapshot(elsewhere) == before


def test_overwrite_waits_for_no_run_in_progress(finished, tmp_path, run_here, monkeypatch):
    monkeypatch.setattr("golu_core.training.storage.locks._PATIENCE_S", 0.1)
    monkeypatch.setattr(claim, "__defaults__", (0.1,))
    lock = claim(finished)
    before = snapshot(finished)
    refused(run_here(*command("--overwrite"), cwd=tmp_path), "another process is training in")
    assert snapshot(finished) == before
    lock.release()


def test_a_folder_that_is_no_run_is_left_alone(data, tmp_path, run_here):
    (tmp_path / FOLDER).mkdir(parents=True)
    (tmp_path / FOLDER / "metrics.jsonl").write_text("mine\n")
    before = snapshot(tmp_path)
    refused(run_here(*command(), cwd=tmp_path), "is not a run of this program")
    refused(run_here(*command("--overwrite"), cwd=tmp_path), "it has no run.json")
    assert snapshot(tmp_path) == before


def test_a_run_is_evaluated_where_its_tracker_is_not_installed(finished, tmp_path, run_here, monkeypatch):
    config = json.loads((finished / "config.json").read_text())
    (finished / "config.json").write_text(json.dumps({**config, "tracker": "wandb"}))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = run_here("evaluate", str(FOLDER), cwd=tmp_path)
    assert done.returncode == 0 and "the same as in result.json" in done.stderr
    refused(run_here(*command("--tracker", "wandb", "--seed", "1"), cwd=tmp_path), "--tracker wandb needs the package")
    assert not (tmp_path / FOLDER).with_name("seed1").exists()


def test_runs_of_version_0_1_are_refused_with_the_reason(finished, tmp_path, run_here):
    config = json.loads((finished / "config.json").read_text())
    del config["format"]
    (finished / "config.json").write_text(json.dumps(config))
    (finished / "run.json").unlink()
    shutil.rmtree(finished / "checkpoints")
    for done in (run_here(*command(), cwd=tmp_path), run_here("evaluate", str(FOLDER), cwd=tmp_path)):
        refused(done, "was written by version 0.1 of golu")


# ---------------------------------------------------------------------------------------------------------- overwriting


def test_overwrite_deletes_once_and_then_continues(stopped_early, tmp_path, run_here):
    """Typed again after a kill, the command continues what it began: a job that is queued again must get on."""
    again = run_here(*command("--overwrite"), cwd=tmp_path)
    assert again.returncode == 0 and "continuing" not in again.stdout  # the earlier run was begun without the flag
    for name in ("result.json", "model.safetensors"):
        (stopped_early / name).unlink()
    shutil.rmtree(stopped_early / "checkpoints" / "step-00000008")
    done = run_here(*command("--overwrite"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "continuing" in done.stdout and "after step 6" in done.stdout
    same_outcome(stopped_early, stopped_early.with_name("whole"))
    fresh = run_here(*command("--overwrite"), cwd=tmp_path)
    assert fresh.returncode == 0 and "continuing" not in fresh.stdout  # a finished one is deleted


def test_overwrite_deletes_what_cannot_be_continued(stopped, tmp_path, run_here):
    for checkpoint in (stopped / "checkpoints").iterdir():
        (checkpoint / "model.safetensors").write_bytes(b"torn")
    refused(run_here(*command(), cwd=tmp_path), "is whole", "--overwrite")
    done = run_here(*command("--overwrite"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    same_outcome(stopped, stopped.with_name("whole"))


def test_overwrite_takes_a_foreign_config(finished, tmp_path, run_here):
    refused(run_here(*command("--optim.lr", "0.2"), cwd=tmp_path), "optim.lr: 0.1 there, 0.2 asked for")
    done = run_here(*command("--optim.lr", "0.2", "--overwrite"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((finished / "config.json").read_text())["optim"]["lr"] == 0.2


# -------------------------------------------------------------------------------------------------------- what a run is


def one_picture_more(root: Path) -> None:
    Image.new("L", (8, 8), 99).save(root / "train" / "0" / "zz.png")


def other_pixels(root: Path) -> None:
    path = sorted((root / "train" / "1").iterdir())[2]
    picture = Image.open(path)
    picture.putpixel((3, 3), (picture.getpixel((3, 3)) + 9) % 256)
    picture.save(path)


def exchanged(root: Path) -> None:
    first, second = sorted((root / "train" / "2").iterdir())[:2]
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other), second.write_bytes(one)


def test_picture_less(root: Path) -> None:
    sorted((root / "test" / "0").iterdir())[0].unlink()


test_picture_less.__test__ = False


@pytest.mark.parametrize("change", [one_picture_more, other_pixels, exchanged, test_picture_less])
@pytest.mark.parametrize("memory", [[], ["--data.no-in-memory"]])
def test_other_data_are_refused(change, memory, data, tmp_path, run_here):
    assert run_here(*command(*memory), cwd=tmp_path).returncode == 0
    change(data)
    refused(run_here("evaluate", str(FOLDER), cwd=tmp_path), "the data are not those of the run")
    (tmp_path / FOLDER / "result.json").unlink()
    refused(run_here(*command(*memory), cwd=tmp_path), "or other data", "data: ")


def test_data_may_move(finished, data, tmp_path, run_here):
    data.rename(tmp_path / "moved")
    arguments = [word if word != "photos" else "moved" for word in command()]
    (finished / "result.json").unlink()
    done = run_here(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_all_content_is_compared_where_it_was_read(data, tmp_path, run_here, monkeypatch):
    """Of a large folder every thousandth file is sampled; a change in another is found with --check-data."""
    monkeypatch.setattr("golu_core.training.storage.fingerprint._FILES_SAMPLED", 1)
    plain = command("--data.no-in-memory", "--check-data")
    assert run_here(*plain, cwd=tmp_path).returncode == 0
    path = sorted((data / "train" / "3").iterdir())[5]
    content = bytearray(path.read_bytes())
    content[30] ^= 1  # in a checksum that decoders of PNG may leave unread
    path.write_bytes(content)
    (tmp_path / FOLDER / "result.json").unlink()
    done = run_here(*plain, cwd=tmp_path)
    assert done.returncode == 2, done.stdout


def test_other_versions_are_said_once(stopped, tmp_path, run_here):
    for path in [stopped / "run.json", *(stopped / "checkpoints").glob("*/run.json")]:
        values = json.loads(path.read_text())
        values["environment"]["timm"] = "0.0.1"
        path.write_text(json.dumps(values))
    done = run_here(*command(), cwd=tmp_path)
    assert "the run began under other versions: timm 0.0.1, now " in done.stderr
    assert done.stderr.count("other versions") <= 2


def test_the_result_names_what_computed_it(finished):
    found = json.loads((finished / "result.json").read_text())["environment"]
    assert {"torch", "timm", "numpy", "torchvision", "accelerate", "safetensors", "golu-core", "golu-vision"} <= set(
        found
    )


# -------------------------------------------------------------------------------------------------------------- damage


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [flip_bit, remove, pytest.param(cut, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["model.safetensors", "result.json", "metrics.jsonl"])
def test_a_damaged_finished_run_is_completed_from_its_last_checkpoint(name, damage, finished, tmp_path, run_here):
    whole = tmp_path / "whole"
    shutil.copytree(finished, whole)
    damage(finished / name)
    if name != "metrics.jsonl":
        refused(run_here("evaluate", str(FOLDER), cwd=tmp_path), name)
    done = run_here(*command(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "finished already" not in done.stdout
    if (name, damage) != ("result.json", remove):
        assert f"{name}" in done.stderr and "completed from its last checkpoint" in done.stderr
    same_outcome(finished, whole)
    assert "finished already" in run_here(*command(), cwd=tmp_path).stdout
    evaluated = run_here("evaluate", str(FOLDER), cwd=tmp_path)
    assert evaluated.returncode == 0 and "to the last digit" in evaluated.stderr


@pytest.mark.parametrize("damage", [flip_bit, *(pytest.param(kind, marks=pytest.mark.slow) for kind in (cut, remove))])
@pytest.mark.parametrize("name", CHECKPOINTED)
def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(name, damage, stopped, tmp_path, run_here):
    newest = stopped / "checkpoints" / "step-00000006"
    if name == "manifest.json" and damage is flip_bit:
        (newest / name).write_text((newest / name).read_text().replace("golu-checkpoint/2", "golu-checkpoint"))
    else:
        damage(newest / name)
    done = run_here(*command(), cwd=tmp_path)
    assert done.returncode == 2 or done.returncode == 0, done.stderr
    assert "step-00000006 is damaged" in done.stderr


def test_a_manifest_without_files_is_no_whole_checkpoint(stopped_early, tmp_path, run_here):
    newest = stopped_early / "checkpoints" / "step-00000004"
    for manifest in ("{}", '{"format": "golu-checkpoint/2", "step": 4, "files": {}}', "[]", "[" * 50_000):
        (newest / "manifest.json").write_text(manifest)
        copy = tmp_path / "copy"
        shutil.copytree(tmp_path / "runs", copy)
        done = run_here(*command("--output-dir", "copy"), cwd=tmp_path)
        assert "step-00000004 is damaged" in done.stderr and "Traceback" not in done.stderr
        assert done.returncode == 0
        shutil.rmtree(copy)


def test_a_checkpoint_of_a_later_version_is_a_message(stopped, tmp_path, run_here):
    for manifest in (stopped / "checkpoints").glob("*/manifest.json"):
        manifest.write_text(manifest.read_text().replace("golu-checkpoint/2", "golu-checkpoint/7"))
    refused(run_here(*command(), cwd=tmp_path), "golu-checkpoint/7", "golu-checkpoint/2")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("optimizer.pt", b"\x80\x04\x95\x1d\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94."),
        ("model.safetensors", b"\xff\xff\xff\xff\xff\xff\xff\x7f{}"),
        ("position.json", b'{"step": -6, "epoch": 1, "step_in_epoch": 2}'),
        ("position.json", b'{"step": 1e400}'),
        ("position.json", b"[]"),
    ],
)
def test_what_only_malice_makes_is_refused_in_words(name, content, stopped, tmp_path, run_here):
    from golu_core.training.storage.fingerprint import file_digest

    for checkpoint in (stopped / "checkpoints").iterdir():
        (checkpoint / name).write_bytes(content)
        manifest = json.loads((checkpoint / "manifest.json").read_text())
        manifest["files"][name] = file_digest(checkpoint / name)
        (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    refused(run_here(*command(), cwd=tmp_path), name)


def test_a_checkpoint_knows_whose_it_is(stopped, tmp_path, run_here):
    """With config.json and run.json gone, another config does not continue the first one's weights."""
    (stopped / "config.json").unlink()
    (stopped / "run.json").unlink()
    refused(run_here(*command("--optim.lr", "0.2"), cwd=tmp_path), "optim.lr: 0.1 there, 0.2 asked for")
    done = run_here(*command(), cwd=tmp_path)
    assert done.returncode == 0 and "continuing" in done.stdout
    same_outcome(stopped, stopped.with_name("whole"))
    assert (stopped / "config.json").exists() and (stopped / "run.json").exists()


@pytest.mark.parametrize("kind", ["torn", "missing", "changed", "longer"])
def test_metrics_are_repaired_from_the_checkpoint(kind, stopped, tmp_path, run_here):
    path = stopped / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    made = {
        "torn": "".join(lines) + '{"step": 7, "ep',
        "missing": "".join(lines[2:]),
        "changed": "".join(["{}\n", *lines[1:]]),
        "longer": "".join([*lines, '{"step": 99, "split": "test"}\n']),
    }
    path.write_text(made[kind])
    done = run_here(*command(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert ("has lost or changed lines" in done.stderr) == (kind in ("missing", "changed"))
    assert metrics_without_time(stopped) == metrics_without_time(stopped.with_name("whole"))


def test_a_torn_line_before_the_first_checkpoint_is_no_traceback(stopped, tmp_path, run_here):
    shutil.rmtree(stopped / "checkpoints")
    with (stopped / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "ep')
    done = run_here(*command(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    same_outcome(stopped, stopped.with_name("whole"))


def test_a_kill_leaves_nothing_that_stays(stopped, tmp_path, run_here):
    """Whatever a kill leaves in the folder is gone after the next start."""
    for place in (".model.safetensors.partial", "samples/.worst.png.partial", "checkpoints/.step-00000008.partial"):
        (stopped / place).mkdir(parents=True)
        (stopped / place / "partial.json").write_text('{"format": "golu-partial/1"}')
        (stopped / place / ".tmpX9").write_text("half a model")
    done = run_here(*command(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [str(p) for p in stopped.rglob("*") if p.name.startswith(".")] == []
    assert {p.name for p in stopped.iterdir()} == {p.name for p in stopped.with_name("whole").iterdir()}
