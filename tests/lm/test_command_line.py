"""golu-lm as a person uses it, and as a person gets it wrong."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest

from command_line import runner_in_this_process
from golu_lm.cli import COMMAND_LINE
from golu_lm.recipes import RECIPES
from lm_program import FOLDER, LM, TINY, gpt2_vocabulary


@pytest.fixture
def run_here(monkeypatch, capfd):
    return runner_in_this_process(COMMAND_LINE, monkeypatch, capfd)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("finished")
    done = LM.run("train", "babygpt-pydocs", *TINY, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd, done


def test_a_finished_run_has_all_its_files(finished):
    cwd, done = finished
    assert "bits_per_byte" in done.stdout and "model FLOPs utilization" in done.stdout
    result = json.loads((cwd / FOLDER / "result.json").read_text())
    assert result["schema"] == "golu-result/1" and result["steps"] == 12 and result["task"] == "lm"
    assert result["activations"] == {"swapped": 2, "left": []}
    metrics = result["metrics"]
    assert metrics["perplexity"] == pytest.approx(math.exp(metrics["loss"]))
    assert {"token_accuracy", "bits_per_byte", "sampled_perplexity"} <= set(metrics)
    assert result["throughput"]["unit"] == "tokens/s"
    assert 0 < result["model_flops_utilization"]["value"] < 1
    assert result["data"]["test"]["tokens"] > 30_000
    assert (cwd / FOLDER / "samples" / "generated.txt").stat().st_size > 20
    lines = [json.loads(line) for line in (cwd / FOLDER / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["split"] == "test"] == [4, 8, 12]
    assert lines[-1]["epoch"] == pytest.approx(12 * 8 * 32 / result["data"]["train"]["tokens"], abs=1e-4)
    bits = metrics["loss"] * (result["data"]["test"]["tokens"] - 1) / math.log(2)
    assert metrics["bits_per_byte"] == pytest.approx(bits / result["data"]["test"]["text_bytes"])


def test_evaluate_prints_the_metrics_of_the_result(finished, run_here):
    cwd, _ = finished
    result = json.loads((cwd / FOLDER / "result.json").read_text())
    done = run_here("evaluate", str(FOLDER), "--eval-batch", "7", cwd=cwd)
    assert done.returncode == 0, done.stderr
    printed = {name: float(value) for name, value in (line.split() for line in done.stdout.splitlines())}
    assert set(printed) == {"loss", "perplexity", "token_accuracy", "bits_per_byte"}
    for name, value in printed.items():
        assert value == pytest.approx(result["metrics"][name], rel=1e-5)


def test_generate_streams_text_that_depends_on_the_seed_alone(finished, run_here):
    cwd, _ = finished
    flags = ["--prompt", "The Python", "--tokens", "60", "--temperature", "0.9", "--top-k", "50"]
    one, two, other = (
        run_here("generate", str(FOLDER), *flags, "--seed", seed, cwd=cwd).stdout for seed in ("1", "1", "2")
    )
    assert one == two != other
    assert one.startswith("The Python") and len(one) > 40


def test_generate_reads_a_prompt_and_stops_and_repeats(finished, run_here, monkeypatch):
    cwd, _ = finished
    flags = ["--tokens", "40", "--temperature", "0.9"]
    one, two = (
        run_here("generate", str(FOLDER), *flags, "--prompt", "The Python", "--seed", seed, cwd=cwd).stdout
        for seed in ("1", "2")
    )
    (cwd / "prompt.txt").write_text("The Python\n")
    read = run_here("generate", str(FOLDER), *flags, "--prompt-file", "prompt.txt", "--seed", "1", cwd=cwd)
    assert read.stdout == one
    monkeypatch.setattr("sys.stdin", io.StringIO("The Python"))
    both = run_here("generate", str(FOLDER), *flags, "--prompt-file", "-", "--samples", "2", "--seed", "1", cwd=cwd)
    assert both.stdout == f"{one}\n\n{'-' * 80}\n\n{two}"
    letter = next(letter for letter in one[10:] if letter.isalpha())
    flags = [*flags, "--prompt", "The Python", "--seed", "1", "--stop", "never there", letter]
    assert run_here("generate", str(FOLDER), *flags, cwd=cwd).stdout == one[: one.index(letter, 10)] + "\n"
    done = run_here("generate", str(FOLDER), "--prompt", "a", "--prompt-file", "prompt.txt", cwd=cwd)
    assert done.returncode == 2 and "cannot be combined" in done.stderr
    assert run_here("generate", str(FOLDER), "--stop", "", cwd=cwd).returncode == 2
    assert run_here("generate", str(FOLDER), "--top-p", "0", cwd=cwd).returncode == 2


def test_export_gives_a_hugging_face_model(finished, run_here):
    from transformers import GPT2LMHeadModel

    from golu_core import register_with_transformers

    cwd, _ = finished
    done = run_here("export", str(FOLDER), "exported", cwd=cwd)
    assert done.returncode == 0 and "export RUN_DIR --out DIR --format safetensors" in done.stderr
    register_with_transformers()
    assert GPT2LMHeadModel.from_pretrained(cwd / "exported").config.n_layer == 2
    words = ("export", str(FOLDER), "--out", "exported", "--format", "safetensors")
    assert run_here(*words, cwd=cwd).returncode == 2


def test_a_text_of_your_own_with_gpt2_tokens(tmp_path, run_here):
    text = tmp_path / "mine.txt"
    text.write_text("It was the best of times, it was the worst of times. " * 400)
    flags = ["--data.tokenizer", "gpt2", "--data.vocab-file", str(gpt2_vocabulary()), "--model.vocabulary", "50304"]
    done = run_here("train", "babygpt-text", "--data.text", str(text), *flags, *TINY, "--max-steps", "3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs/lm/babygpt-text/golu/seed0"
    result = json.loads((folder / "result.json").read_text())
    assert (result["dataset"], result["data"]["tokenizer"], result["steps"]) == ("mine", "gpt2", 3)
    assert result["metrics"]["bits_per_byte"] < result["metrics"]["loss"] / math.log(2) / 3  # a token is several bytes
    shown = run_here("generate", str(folder), "--tokens", "5", "--prompt", "It was", cwd=tmp_path)
    assert shown.stdout.startswith("It was")


def test_prepare_then_train(tmp_path, run_here):
    rows = [{"text": f"Once there were {n} sheep, and then there were {n + 1}."} for n in range(300)]
    (tmp_path / "sheep.jsonl").write_text("\n".join(map(json.dumps, rows)))
    done = run_here("prepare", "sheep.jsonl", "--tokenizer", "bytes", "--data-dir", "d", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "train: 285 documents" in done.stdout
    again = run_here("prepare", "sheep.jsonl", "--tokenizer", "bytes", "--data-dir", "d", cwd=tmp_path)
    assert again.returncode == 0
    done = run_here(
        "train", "babygpt-text", "--data.name", "sheep", "--data-dir", "d", *TINY, "--max-steps", "2", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_can_be_described_without_data(recipe, tmp_path, run_here):
    done = run_here("train", recipe, "--dry-run", "--mixed-precision", "no", cwd=tmp_path)
    is_there = recipe == "babygpt-pydocs"
    assert done.returncode == (0 if is_there else 2), done.stderr
    assert ("data         missing" in done.stdout) == (not is_there)
    assert not list(tmp_path.iterdir())


WRONG = [
    (["train", "babygpt-pydoc"], ["did you mean 'babygpt-pydocs'"]),
    (["train", "babygpt-tinystories"], ["there is no data folder data/tinystories", "golu-lm prepare"]),
    (["train", "babygpt-text", "--data.text", "absent.txt"], ["there is no text file or folder absent.txt"]),
    (["train", "babygpt-text", "--data.text", "short.txt"], ["tokens, but 257 are needed"]),
    (["train", "babygpt-pydocs", "--model.vocabulary", "100"], ["has 257 tokens", "only 100"]),
    (["train", "babygpt-pydocs", "--model.heads", "5"], ["--model.width 192 is not a multiple of --model.heads 5"]),
    (["train", "babygpt-pydocs", "--model.layers", "0"], ["--model.layers must be at least 1"]),
    (["train", "babygpt-pydocs", "--eval-every", "0"], ["--eval-every must be at least 1"]),
    (["train", "babygpt-pydocs", "--mixed-precision", "fp16"], ["needs a GPU"]),
    (["train", "babygpt-pydocs", "--data.tokenizer", "none"], ["name the tokenizer"]),
    (["train", "babygpt-pydocs", "--init-from", "./nowhere"], ["cannot load a GPT-2"]),
    (["prepare", "tinystory"], ["neither a file, a folder, nor one of tinystories"]),
    (["prepare", "short.txt", "--tokenizer", "bytes", "--test-size", "2"], ["--test-size must be between"]),
    (["prepare", "short.txt", "--tokenizer", "words"], ["gpt2 or bytes"]),
    (["generate", "nowhere"], ["there is no run folder nowhere"]),
    (["generate", ".", "--top-k", "0"], ["--top-k must be at least 1"]),
    (["export", "nowhere", "--out", "out"], ["there is no run folder nowhere"]),
    (["evaluate", "nowhere"], ["no run folder nowhere"]),
]


@pytest.mark.parametrize(("arguments", "messages"), WRONG, ids=lambda value: " ".join(value)[:50])
def test_a_wrong_request_is_refused(arguments, messages, tmp_path, run_here):
    (tmp_path / "short.txt").write_text("too short a text")
    done = run_here(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    for message in messages:
        assert message in done.stderr
    assert "Traceback" not in done.stderr
    left = {path.relative_to(tmp_path) for path in tmp_path.rglob("*")} - {Path("short.txt")}
    assert left <= {Path("data")}, left


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, run_here):
    flags = [
        *TINY,
        "--optim.lr",
        "1e30",
        "--schedule",
        "constant",
        "--clip",
        "None",
    ]
    done = run_here("train", "babygpt-pydocs", *flags, cwd=tmp_path)
    assert done.returncode == 1
    assert "the loss of step" in done.stderr and "learning rate 1e+30" in done.stderr
