"""Text files, token files and GPT-2 weights as people have them: read as Python reads them, or refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy
import pytest
import torch

from command_line import runner_in_this_process
from golu_core.training.errors import RequestError
from golu_lm.cli import COMMAND_LINE
from golu_lm.corpora import TextFile, open_corpus
from golu_lm.data import load_data
from golu_lm.hugging_face import sized_like
from golu_lm.prepare import prepare
from golu_lm.recipes import RECIPES
from golu_lm.start_weights import with_sizes_of_source
from golu_lm.tokenizers import ByteTokenizer
from golu_lm.train import build_model
from lm_program import MODEL, SHORT

BYTES = ByteTokenizer()
END = BYTES.end_of_text
STORY = "Once upon a time\nthere was a number. It was 7,\n\nand ärger 日本 came of it.\n"


@pytest.fixture
def run_here(monkeypatch, capfd):
    return runner_in_this_process(COMMAND_LINE, monkeypatch, capfd)


def tokens_of(path: Path, out: Path, **options) -> list[int]:
    prepare(open_corpus(str(path), test_size=0.2, **options), out, BYTES, 1)
    parts = [numpy.fromfile(out / f"{split}.bin", dtype=numpy.uint16) for split in ("train", "test")]
    return numpy.concatenate(parts).tolist()


def without_ends(tokens: list[int]) -> bytes:
    return bytes(token for token in tokens if token != END)


LINES = {
    "Unix": lambda text: text.encode(),
    "Windows": lambda text: text.replace("\n", "\r\n").encode(),
    "old Mac": lambda text: text.replace("\n", "\r").encode(),
    "byte order mark": lambda text: text.encode("utf-8-sig"),
    "Windows with byte order mark": lambda text: text.replace("\n", "\r\n").encode("utf-8-sig"),
    "mixed": lambda text: text.replace("number", "number\r\n").replace("time\n", "time\r").encode(),
}


@pytest.mark.parametrize("part", [7, 64, 1 << 20])
@pytest.mark.parametrize("case", LINES)
def test_a_text_is_what_python_reads(case, part, tmp_path, monkeypatch):
    """Also where it is cut into parts in the middle of a line end."""
    monkeypatch.setattr(TextFile, "_PART", part)
    monkeypatch.setattr(TextFile, "_LONGEST_WITHOUT_CUT", 1 << 24)
    path = tmp_path / "text.txt"
    path.write_bytes(LINES[case](STORY * 5))
    with path.open(encoding="utf-8-sig") as file:
        expected = file.read().encode()
    assert without_ends(tokens_of(path, tmp_path / "out")) == expected


def test_end_of_text_separates_documents(tmp_path):
    path = tmp_path / "stories.txt"
    path.write_text("one two<|endoftext|>\nthree four<|endoftext|>\nfive six seven eight nine")
    separated = tokens_of(path, tmp_path / "separated")
    assert separated.count(END) == 4  # two markers, and the end of each split
    assert b"<|" not in without_ends(separated)
    joined = tokens_of(path, tmp_path / "joined", separated=False)
    assert joined.count(END) == 2 and without_ends(joined) == path.read_bytes()


@pytest.mark.parametrize("part", [16, 1 << 20])
@pytest.mark.parametrize("text", ["ACGT" * 500, "日本語の文章" * 200, "QUJD" * 300], ids=["DNA", "Japanese", "base64"])
def test_a_text_without_white_space_is_read_whole(text, part, tmp_path, monkeypatch):
    monkeypatch.setattr(TextFile, "_PART", part)
    monkeypatch.setattr(TextFile, "_LONGEST_WITHOUT_CUT", 4 * part)
    path = tmp_path / "text.txt"
    path.write_text(text)
    tokens = tokens_of(path, tmp_path / "out")
    assert without_ends(tokens).decode() == text
    first_end = tokens.index(END)
    assert 0.7 < first_end / len(tokens) < 0.9


ROWS = [f"row {n} has words" for n in range(40)]
TABLES = {
    "x.jsonl": lambda: "\n".join(json.dumps({"text": row, "other": 1}) for row in ROWS),
    "x.json": lambda: json.dumps([{"text": row} for row in ROWS]),
    "x.csv": lambda: "id,text\n" + "\n".join(f'{n},"{row}"' for n, row in enumerate(ROWS)),
    "x.tsv": lambda: "id\ttext\n" + "\n".join(f"{n}\t{row}" for n, row in enumerate(ROWS)),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_rows_of_text_in_prepare_and_train(name, tmp_path, run_here):
    path = tmp_path / name
    path.write_text(TABLES[name]())
    tokens = tokens_of(path, tmp_path / "out")
    assert tokens.count(END) == 40
    assert sorted(bytes(without_ends(tokens)).decode().replace("wordsrow", "words\nrow").splitlines()) == sorted(ROWS)
    small = ["--model.context", "16", "--batch-size", "2", "--dry-run"]
    done = run_here("train", "babygpt-text", "--data.text", name, *small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = [int(word.replace(",", "")) for word in done.stdout.split() if word.replace(",", "").isdigit()]
    assert len(tokens) in [a + b for a in found for b in found]
    done = run_here("train", "babygpt-text", "--data.text", name, "--data.column", "body", *small, cwd=tmp_path)
    assert done.returncode == 2 and "no column 'body'" in done.stderr


def test_a_row_that_is_no_text_is_named_by_its_place_in_the_file(tmp_path):
    rows: list[object] = list(ROWS)
    rows[17] = None
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(json.dumps({"text": row}) for row in rows))
    with pytest.raises(RequestError, match="row 17, counted from 0"):
        tokens_of(path, tmp_path / "out")


def test_folders_and_what_is_not_there_are_named(tmp_path, run_here):
    (tmp_path / "texts").mkdir()
    done = run_here("train", "babygpt-text", "--data.text", "texts", "--dry-run", cwd=tmp_path)
    assert done.returncode == 2 and "a folder: name a file in it" in done.stderr
    done = run_here("prepare", "texts", cwd=tmp_path)
    assert done.returncode == 2 and "is a folder: name a file in it" in done.stderr


# --------------------------------------------------------------------------------------------------------- token files


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
@pytest.mark.parametrize("said", [None, "uint8", "uint16", "uint32"])
def test_the_width_of_tokens_is_what_it_is_or_refused(dtype, said, tmp_path):
    tokens = numpy.random.default_rng(0).integers(1, 200, 4000).astype(dtype)
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("train.bin", "val.bin"):
        tokens.tofile(folder / name)
    recipe = RECIPES["babygpt-text"]
    data = dataclasses.replace(recipe.data, name="mine", tokenizer="none", text=None, dtype=said)
    config = dataclasses.replace(recipe, data=data, data_dir=tmp_path)
    if (said or "uint16") == dtype:
        assert load_data(config).train.tokens.tolist() == tokens.tolist()
    else:
        with pytest.raises(RequestError):
            load_data(config)


def test_the_width_of_prepared_tokens_is_not_to_be_said(tmp_path, run_here):
    done = run_here("train", "babygpt-pydocs", "--data.dtype", "uint32", "--dry-run", cwd=tmp_path)
    assert done.returncode == 2 and "--data.dtype is for token files without meta.json" in done.stderr


# -------------------------------------------------------------------------------------------------------- start weights


def source(folder: Path, **changes) -> Path:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    sizes = {"vocab_size": 97, "n_positions": 48, "n_embd": 24, "n_layer": 3, "n_head": 4, **changes}
    model = GPT2LMHeadModel(GPT2Config(**sizes))
    for parameter in model.parameters():  # biases among them
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    return folder


def started(folder: Path, **changes):
    recipe = RECIPES["babygpt-text"]
    model = dataclasses.replace(recipe.model, dropout=0.0, **changes)
    return with_sizes_of_source(dataclasses.replace(recipe, model=model, init_from=str(folder)))


@pytest.mark.parametrize("activation", ["gelu_new", "gelu", "relu", "silu"])
@pytest.mark.parametrize("heads", [2, 4, 6])
def test_logits_before_training_are_those_of_transformers(activation, heads, tmp_path):
    """Sizes are the source's own, whatever the recipe has."""
    from transformers import GPT2LMHeadModel

    from golu_lm.hugging_face import activation_of, load_hugging_face

    folder = source(tmp_path, activation_function=activation, n_head=heads)
    ours = activation_of(str(folder))
    config = dataclasses.replace(started(folder), activation={"gelu_new": "gelu_tanh", "silu": "swish"}.get(ours, ours))
    assert (config.model.heads, config.model.layers, config.model.vocabulary) == (heads, 3, 97)
    assert config.model.bias and config.model.context == 48
    model, _ = build_model(config)
    load_hugging_face(model, str(folder))
    theirs = GPT2LMHeadModel.from_pretrained(folder).eval()
    tokens = torch.randint(97, (2, 20))
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(tokens), theirs(tokens).logits, rtol=1e-4, atol=1e-4)


def test_a_shorter_context_is_cropped(tmp_path):
    from transformers import GPT2LMHeadModel

    from golu_lm.hugging_face import load_hugging_face

    folder = source(tmp_path, activation_function="gelu")
    config = dataclasses.replace(started(folder, context=20), activation="gelu")
    assert config.model.context == 20
    model, _ = build_model(config)
    load_hugging_face(model, str(folder))
    theirs = GPT2LMHeadModel.from_pretrained(folder).eval()
    tokens = torch.randint(97, (1, 20))
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(tokens), theirs(tokens).logits, rtol=1e-4, atol=1e-4)


SOURCES = [
    ({"layer_norm_epsilon": 1e-6}, "epsilon 1e-06"),
    ({"tie_word_embeddings": False}, "not tied"),
    ({"scale_attn_weights": False}, "not scaled by the width of a head"),
    ({"scale_attn_by_inverse_layer_idx": True}, "scaled by the layer"),
    ({"n_inner": 50}, "50 wide"),
    ({"add_cross_attention": True}, "cross-attention"),
]


@pytest.mark.parametrize(("changes", "words"), SOURCES)
def test_what_the_model_cannot_have_is_refused(changes, words, tmp_path):
    folder = source(tmp_path, **changes)
    with pytest.raises(RequestError, match=words):
        sized_like(str(folder), RECIPES["babygpt-text"].model)


def test_a_run_continues_without_the_weights_that_it_started_from(tmp_path, run_here):
    folder = source(tmp_path / "source", vocab_size=320)
    flags = ["--init-from", str(folder), *MODEL, *SHORT, "--batch-size", "4", "--log-every", "1"]
    flags += ["--checkpoint-every", "3", "--data-dir", "data"]
    done = run_here("train", "babygpt-pydocs", *flags, "--output-dir", "whole", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "was trained with gelu_tanh; the run goes on with golu" in done.stderr
    weights = Path("lm/babygpt-pydocs/golu/seed0/model.safetensors")
    done = run_here("train", "babygpt-pydocs", *flags, "--output-dir", "cut", cwd=tmp_path)
    run = (tmp_path / "cut" / weights).parent
    for name in ("result.json", "model.safetensors"):
        (run / name).unlink()
    shutil.rmtree(sorted((run / "checkpoints").iterdir())[-1])
    shutil.rmtree(folder)
    done = run_here("train", "babygpt-pydocs", *flags, "--output-dir", "cut", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "the run continues from its checkpoint" in done.stderr
    assert (tmp_path / "cut" / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()
    done = run_here("train", "babygpt-pydocs", *flags, "--output-dir", "new", cwd=tmp_path)
    assert done.returncode == 2 and "transformers cannot load" in done.stderr


def test_exports_have_their_own_end_of_text_and_can_be_read_by_others(tmp_path, run_here):
    flags = [*MODEL, *SHORT, "--steps", "2", "--batch-size", "4"]
    done = run_here("train", "babygpt-pydocs", "--activation", "gelu", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs/lm/babygpt-pydocs/gelu/seed0"
    done = run_here("export", str(run), "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["eos_token_id"] == config["bos_token_id"] == END
    for path in (*(tmp_path / "out").iterdir(), run / "model.safetensors", run / "result.json"):
        assert path.stat().st_mode & 0o044 == 0o044, path
