"""Text files, token files and GPT-2 weights as people have them: read as Python reads them, or refused."""

from __future__ import annotations

import bz2
import dataclasses
import errno
import gzip
import io
import json
import lzma
import os
import re
import shutil
import tarfile
from pathlib import Path

import numpy
import pyarrow
import pytest
import torch

from command_line import runner_in_this_process
from golu_core.training.messages.errors import RequestError
from golu_lm.cli import COMMAND_LINE
from golu_lm.corpora import Reading, open_corpus
from golu_lm.data import load_data
from golu_lm.hugging_face import sized_like
from golu_lm.initial_weights import sized_like_source
from golu_lm.model import build_model
from golu_lm.prepare import prepare
from golu_lm.recipes import RECIPES
from golu_lm.text_files import TextFile
from golu_lm.tokenizers import ByteTokenizer
from lm_program import MODEL, SHORT

BYTES = ByteTokenizer()
END = BYTES.end_of_text
STORY = "Once upon a time\nthere was a number. It was 7,\n\nand ärger 日本 came of it.\n"


@pytest.fixture
def run_here(monkeypatch, capfd):
    return runner_in_this_process(COMMAND_LINE, monkeypatch, capfd)


def tokens_of(path: Path, out: Path, **options) -> list[int]:
    prepare(open_corpus(str(path), Reading(**{"test_size": 0.2, **options})), out, BYTES, 1)
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
    joined = tokens_of(path, tmp_path / "joined", split_on_endoftext=False)
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
    advice = re.search(r"name one of (.*) by (--data.column)$", done.stderr.strip())
    assert advice is not None and "text" in advice[1].split(", ")
    done = run_here("train", "babygpt-text", "--data.text", name, advice[2], "text", *small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_row_that_is_no_text_is_named_by_its_place_in_the_file(tmp_path):
    rows: list[object] = list(ROWS)
    rows[17] = None
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(json.dumps({"text": row}) for row in rows))
    with pytest.raises(RequestError, match=r"row 17, counted from 0, of \S+x\.jsonl holds NoneType"):
        tokens_of(path, tmp_path / "out")


ROW_TEXT = "\n".join(ROWS) + "\n"


def packed_tar(data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        member = tarfile.TarInfo("x.txt")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def zstd(data: bytes) -> bytes:
    out = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(out, "zstd") as file:
        file.write(data)
    return out.getvalue().to_pybytes()


def in_frames(compress, data: bytes) -> bytes:
    """As `cat` and parallel compressors make them: several streams in one file."""
    return compress(data[:300]) + compress(data[300:])


COMPRESSED = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstd,
}


@pytest.mark.parametrize("part", [64, 1 << 20])
@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("kind", COMPRESSED)
def test_compressed_text_is_the_text(kind, frames, part, tmp_path, monkeypatch):
    monkeypatch.setattr(TextFile, "_PART", part)
    (tmp_path / "x.txt").write_text(ROW_TEXT)
    compress = COMPRESSED[kind]
    data = compress(ROW_TEXT.encode()) if frames == 1 else in_frames(compress, ROW_TEXT.encode())
    for name in (f"x.txt.{kind}", "named-otherwise.log"):
        (tmp_path / name).write_bytes(data)
        assert tokens_of(tmp_path / name, tmp_path / f"out-{name}") == tokens_of(tmp_path / "x.txt", tmp_path / "out")


@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("kind", COMPRESSED)
def test_compressed_tables_are_the_tables(kind, frames, tmp_path):
    """Also after the file was changed in its place: nothing that was unpacked once is taken again."""
    path = tmp_path / f"x.jsonl.{kind}"
    for turn in ("first", "second"):
        rows = "\n".join(json.dumps({"text": f"{turn} {row}"}) for row in ROWS)
        compress = COMPRESSED[kind]
        path.write_bytes(compress(rows.encode()) if frames == 1 else in_frames(compress, rows.encode()))
        tokens = without_ends(tokens_of(path, tmp_path / turn)).decode()
        assert tokens.count(turn) == len(ROWS)


REFUSED = {
    "half a gzip": (lambda: gzip.compress(os.urandom(5000))[:3000], "x.txt cannot be unpacked"),
    "half a bzip2": (lambda: bz2.compress(os.urandom(5000))[:3000], "x.txt cannot be unpacked"),
    "half an xz": (lambda: lzma.compress(os.urandom(5000))[:3000], "x.txt cannot be unpacked"),
    "a torn zstd": (lambda: b"\x28\xb5\x2f\xfd" + os.urandom(3000), "x.txt cannot be unpacked"),
    "half a zstd": (lambda: zstd(os.urandom(5000))[:3000], "x.txt cannot be unpacked"),
    "a damaged gzip": (lambda: b"\x1f\x8b\x08" + bytes(3000), "x.txt cannot be unpacked"),
    "a damaged bzip2": (lambda: b"BZh9" + os.urandom(3000), "x.txt cannot be unpacked"),
    "a zip archive": (lambda: b"PK\x03\x04" + bytes(100), "x.txt is a zip archive: unpack it first"),
    "a packed tar archive": (lambda: packed_tar(b"text"), "x.txt is a tar archive: unpack it first"),
    "Latin-1": (lambda: "Bär ".encode("latin-1") * 50, "x.txt is not UTF-8 text: byte 1 is wrong"),
    "an empty file": (lambda: b"", "x.txt is empty"),
    "nothing, compressed": (lambda: gzip.compress(b""), "x.txt is empty"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_text_that_cannot_be_read_is_named(case, tmp_path, run_here):
    content, words = REFUSED[case]
    (tmp_path / "x.txt").write_bytes(content())
    for command in (["train", "babygpt-text", "--data.text", "x.txt", "--dry-run"], ["prepare", "x.txt"]):
        done = run_here(
            *command, "--tokenizer" if command[0] == "prepare" else "--data.tokenizer", "bytes", cwd=tmp_path
        )
        assert done.returncode == 2 and words in done.stderr, done.stderr
        assert not (tmp_path / "data" / "x").exists()


def write_files(folder: Path, names: str) -> None:
    for number, name in enumerate(names.split()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [f"{row} in {name}" for row in ROWS[10 * (number % 4) :]]
        table = "\n".join(json.dumps({"text": row}) for row in rows)
        text = table if ".jsonl" in name else "\n".join(rows)
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())


FOLDERS = {
    "text files": ("b.txt a.txt sub/c.md", ""),
    "packed and not": ("a.txt b.txt.gz", ""),
    "with other files": ("a.txt b.txt picture.png .hidden.txt __MACOSX/a.txt", ""),
    "split by names": ("train.txt validation.txt", "validation.txt"),
    "split by folders": ("train/a.txt train/b.txt test/a.txt", "test/a.txt"),
    "parts of tables": ("train-00000-of-00002.jsonl train-00001-of-00002.jsonl test-00000-of-00001.jsonl", "test"),
    "tables": ("x.jsonl y.jsonl.gz", ""),
    "two test splits": ("train.txt val.txt test.txt", "val.txt"),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_folders_of_text(case, tmp_path, run_here):
    names, test = FOLDERS[case]
    write_files(tmp_path / "texts", names)
    options = {"test_size": None} if test else {}
    tokens = tokens_of(tmp_path / "texts", tmp_path / "out", **options)
    read = [
        n
        for n in names.split()
        if not (n.startswith((".", "__")) or ".png" in n or (n == "test.txt" and "val" in test))
    ]
    text = without_ends(tokens).decode()
    assert all(f"row 39 has words in {name}" in text for name in read)
    assert text.count("in ") == sum(len(ROWS) - 10 * (names.split().index(name) % 4) for name in read)
    if test:
        of_test = numpy.fromfile(tmp_path / "out" / "test.bin", dtype=numpy.uint16).tolist()
        assert {line.split("in ")[1][:3] for line in without_ends(of_test).decode().split("row ") if line} == {test[:3]}
    small = ["--model.context", "16", "--batch-size", "2", "--dry-run", "--data.tokenizer", "bytes"]
    done = run_here("train", "babygpt-text", "--data.text", "texts", *small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    prepared = run_here("prepare", "texts", "--tokenizer", "bytes", cwd=tmp_path)
    assert prepared.returncode == 0, prepared.stderr
    for said in (done.stdout + done.stderr, prepared.stdout):
        assert ("1 file that is not read as text (1 .png), such as picture.png" in said) == ("picture.png" in names)
        assert ("is not used" in said) == ("val.txt test.txt" in names)


WRONG_FOLDERS = {
    "no text": ("a.png b", "has no file that ends in .txt"),
    "nothing": ("", "it has no file at all"),
    "two formats": ("a.txt b.jsonl", "files of several formats"),
    "a file and its packed self": ("a.txt a.txt.gz", "has a.txt.gz beside a.txt: move one"),
    "some named after a split": ("train.txt a.txt", "is named after a split, and"),
    "a test split only": ("test.txt", "no file that is named train"),
}


@pytest.mark.parametrize("case", WRONG_FOLDERS)
def test_folders_that_are_no_corpus_are_refused(case, tmp_path, run_here):
    names, words = WRONG_FOLDERS[case]
    (tmp_path / "texts").mkdir()
    write_files(tmp_path / "texts", names)
    for command in (["train", "babygpt-text", "--data.text", "texts", "--dry-run"], ["prepare", "texts"]):
        done = run_here(*command, cwd=tmp_path)
        assert done.returncode == 2 and words in done.stderr, done.stderr
    done = run_here("train", "babygpt-text", "--data.text", "nowhere", "--dry-run", cwd=tmp_path)
    assert done.returncode == 2 and "there is no text file or folder nowhere" in done.stderr


def test_the_end_of_a_folders_text_is_the_test_split(tmp_path):
    """As if the files were one, in the order of their names; each ends a document."""
    (tmp_path / "texts").mkdir()
    for letter in "cab":
        (tmp_path / "texts" / f"{letter}.txt").write_text(" ".join([letter] * 500))
    tokens_of(tmp_path / "texts", tmp_path / "out", test_size=0.4)
    train, test = (
        numpy.fromfile(tmp_path / "out" / f"{s}.bin", dtype=numpy.uint16).tolist() for s in ("train", "test")
    )
    assert [bytes(t for t in part if t != END).decode().replace(" ", "") for part in (train, test)] == [
        "a" * 500 + "b" * 400,
        "b" * 100 + "c" * 500,
    ]
    assert (train.count(END), test.count(END)) == (2, 2)


@pytest.mark.parametrize("test_size", [1e-17, 1 - 1e-12])
def test_the_smallest_and_the_largest_test_split(test_size, tmp_path):
    path = tmp_path / "x.txt"
    path.write_text(ROW_TEXT)
    tokens = tokens_of(path, tmp_path / "out", test_size=test_size)
    assert without_ends(tokens).decode() == ROW_TEXT
    assert tokens.count(END) == 2


def test_a_file_that_shrinks_while_it_is_read_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(TextFile, "_PART", 64)
    path = tmp_path / "x.txt"
    path.write_text(ROW_TEXT)
    corpus = open_corpus(str(path))
    path.write_text(ROW_TEXT[:100])
    with pytest.raises(RequestError, match="became shorter while it was read"):
        list(corpus.pieces("train", 0))


def test_a_full_disk_is_not_the_fault_of_the_text(tmp_path, monkeypatch):
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(TABLES["x.jsonl"]().encode()))

    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device", "elsewhere")

    monkeypatch.setattr("golu_lm.corpora.shutil.copyfileobj", full)
    with pytest.raises(OSError, match=r"No space left on device.*elsewhere") as caught:
        tokens_of(path, tmp_path / "out")
    assert not isinstance(caught.value, RequestError)


READINGS = {
    "pydocs": "hub revision column test_size seed split_on_endoftext",
    "tinystories": "test_size seed split_on_endoftext",
    "openwebtext": "split_on_endoftext",
    "x.txt": "hub revision column seed",
    "x.jsonl": "hub revision split_on_endoftext",
    "split": "hub revision column seed test_size",
}


@pytest.mark.parametrize("dataset", READINGS)
def test_a_flag_that_a_corpus_has_no_use_for_is_refused(dataset, tmp_path, run_here):
    (tmp_path / "x.txt").write_text(ROW_TEXT)
    (tmp_path / "x.jsonl").write_text(TABLES["x.jsonl"]())
    write_files(tmp_path / "split", "train.txt test.txt")
    values = {"hub": "a/b", "revision": "v1", "column": "text", "test_size": "0.1", "seed": "3"}
    for name in READINGS[dataset].split():
        flag = "--no-split-on-endoftext" if name == "split_on_endoftext" else f"--{name.replace('_', '-')}"
        done = run_here("prepare", dataset, flag, *([values[name]] if name in values else []), cwd=tmp_path)
        assert done.returncode == 2 and f"{flag} has no effect on" in done.stderr, (name, done.stderr)


def test_an_edited_file_of_the_same_length_is_another_corpus(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text(ROW_TEXT)
    tokens_of(path, tmp_path / "out")
    path.write_text(ROW_TEXT.replace("7", "8"))
    with pytest.raises(RequestError, match="holds other data"):
        tokens_of(path, tmp_path / "out")


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
    return sized_like_source(dataclasses.replace(recipe, model=model, init_from=str(folder)))


@pytest.mark.parametrize("activation", ["gelu_new", "gelu", "relu", "silu"])
@pytest.mark.parametrize("heads", [2, 4, 6])
def test_logits_before_training_are_those_of_transformers(activation, heads, tmp_path):
    """Sizes are the source's own, whatever the recipe has."""
    from transformers import GPT2LMHeadModel

    from golu_core.training.finetuning.transformers_models import activation_of
    from golu_lm.hugging_face import load_hugging_face

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


def test_a_folder_of_hugging_face_runs_no_code(tmp_path, monkeypatch):
    """Neither at once, nor after a question."""
    folder, marker = source(tmp_path), tmp_path / "marker"
    (folder / "evil.py").write_text(
        f"open({str(marker)!r}, 'w')\nfrom transformers import GPT2Config as Config, GPT2LMHeadModel as Model\n"
    )
    values = json.loads((folder / "config.json").read_text())
    code = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (folder / "config.json").write_text(json.dumps({**values, "model_type": "evil", "auto_map": code}))
    monkeypatch.setattr("builtins.input", lambda *prompt: pytest.fail("it asked"))
    with pytest.raises(RequestError, match="cannot load a GPT-2"):
        sized_like(str(folder), RECIPES["babygpt-text"].model)
    assert not marker.exists()


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
    from transformers import AutoTokenizer

    flags = [*MODEL, *SHORT, "--steps", "2", "--batch-size", "4"]
    done = run_here("train", "babygpt-pydocs", "--activation", "gelu", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs/lm/babygpt-pydocs/gelu/seed0"
    done = run_here("export", str(run), "--out", "out", "--format", "safetensors", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["eos_token_id"] == config["bos_token_id"] == END
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.encode("né") == list("né".encode()) and tokenizer.eos_token_id == END
    for path in (*(tmp_path / "out").iterdir(), run / "model.safetensors", run / "result.json"):
        assert path.stat().st_mode & 0o044 == 0o044, path
