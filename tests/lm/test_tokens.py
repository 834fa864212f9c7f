"""From text to token files: tokenizers, `prepare`, and what training takes and refuses."""

from __future__ import annotations

import dataclasses
import itertools
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from types import SimpleNamespace

import numpy
import pytest
import tiktoken
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from golu_core.training.data.orders import BatchPlan, SampleKey, TrainBatches
from golu_core.training.messages.errors import RequestError
from golu_lm import prepare as prepare_module
from golu_lm import text_files
from golu_lm.corpora import Documents, Reading, open_corpus, python_docs
from golu_lm.data import TokenFile, TokenWindows, WindowOrder, load_data, whole_split
from golu_lm.hugging_face import to_hugging_face_tokenizer
from golu_lm.prepare import META_FILE, prepare
from golu_lm.recipes import BABYGPT_PYDOCS
from golu_lm.text_files import TextCorpus, TextFile
from golu_lm.tokenizers import END_OF_TEXT, ByteTokenizer, Gpt2Tokenizer, build_tokenizer, decoded_stream, encode_prompt
from lm_program import gpt2_vocabulary

HARD = [
    "",
    " ",
    "   \n\n \t x",
    "naïve café 東京 🤖👩‍👩‍👧 \u200b\u00a0end",
    "<|endoftext|> is text here <|endoftext|>",
    "I'm you'll they've IT'S 'sx",
    "1234567890 3.14 ½ ²",
    " " * 1000 + "a" + "\n" * 50 + "b",
    "a\r\nb\x00\x1c c\x85d",
    "ﬁ\u0301́́",
]


@pytest.fixture(scope="module")
def gpt2():
    return Gpt2Tokenizer(gpt2_vocabulary())


@pytest.mark.parametrize("text", HARD)
def test_tokens_are_tiktokens_own(text, gpt2):
    expected = gpt2.encoding.encode_ordinary(text)
    assert gpt2.encode_all([text], 2)[0].tolist() == expected
    assert b"".join(gpt2.token_bytes(t) for t in expected).decode() == text


def test_gpt2_tokens_are_the_known_ones(gpt2):
    # of the GPT-2 release: "Hello world" and the end of text
    assert gpt2.encode_all(["Hello world"], 1)[0].tolist() == [15496, 995]
    assert (gpt2.size, gpt2.end_of_text) == (50_257, 50_256)


@pytest.mark.parametrize("text", HARD)
def test_bytes_come_back(text):
    tokenizer = ByteTokenizer()
    tokens = tokenizer.encode_all([text], 1)[0].tolist()
    assert tokens == list(text.encode())
    assert "".join(decoded_stream(tokenizer, iter([*tokens, tokenizer.end_of_text]))) == text


def test_half_a_character_waits():
    parts = list(decoded_stream(ByteTokenizer(), iter("é!".encode())))
    assert parts == ["", "é", "!", ""]


def test_a_prompt_that_is_no_text_is_refused():
    with pytest.raises(RequestError, match="cannot be encoded"):
        encode_prompt(ByteTokenizer(), "a\udc80")


@pytest.mark.parametrize("content", [b"", b"not a vocabulary", b"IQ== 0\nIg== 1\n"])
def test_another_vocabulary_is_refused(content, tmp_path):
    path = tmp_path / "v.tiktoken"
    path.write_bytes(content)
    with pytest.raises(RequestError, match="vocabulary"):
        build_tokenizer("gpt2", path)


def test_a_vocabulary_of_the_same_name_is_read_again(tmp_path):
    """tiktoken keeps what it has read by the path's name."""
    path = tmp_path / "v.tiktoken"
    for content, seen in ((b"IQ== 0", "1 byte pairs"), (b"IQ== 0\nIg== 1", "2 byte pairs")):
        path.write_bytes(content)
        with pytest.raises(RequestError, match=seen):
            build_tokenizer("gpt2", path)


def learned_ranks(text: str, merges: int) -> dict[bytes, int]:
    """Byte pairs of a text, by how often they stand side by side."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    pieces = [[bytes([byte]) for byte in piece.encode()] for piece in text.split("\n")]
    for _ in range(merges):
        counts = Counter(pair for piece in pieces for pair in itertools.pairwise(piece))
        left, right = max(counts, key=lambda pair: (counts[pair], pair))
        ranks[left + right] = len(ranks)
        for piece in pieces:
            for at in range(len(piece) - 2, -1, -1):
                if piece[at : at + 2] == [left, right]:
                    piece[at : at + 2] = [left + right]
    return ranks


@pytest.fixture(scope="module")
def byte_pairs():
    """A tokenizer like GPT-2's with a small vocabulary, and tiktoken's encoding of it."""
    ranks = learned_ranks("\n".join(python_docs().splits["test"])[:20_000], 250)
    encoding = tiktoken.Encoding(
        "small", pat_str=Gpt2Tokenizer.pattern, mergeable_ranks=ranks, special_tokens={END_OF_TEXT: len(ranks)}
    )
    ours = SimpleNamespace(ranks=ranks, pattern=Gpt2Tokenizer.pattern, end_of_text=len(ranks))
    return ours, encoding


def plain(text: str) -> str:
    return text.replace(END_OF_TEXT, "")  # transformers takes it for the end of text


@pytest.mark.parametrize("text", [*HARD, "import the module of the class\n\treturn self.there"])
def test_the_exported_tokenizer_gives_the_same_tokens(text, byte_pairs, tmp_path):
    transformers = pytest.importorskip("transformers")
    ours, encoding = byte_pairs
    cases = [(ours, encoding.encode_ordinary), (ByteTokenizer(), lambda text: list(text.encode()))]
    for tokenizer, expected in cases:
        folder = tmp_path / type(tokenizer).__name__
        to_hugging_face_tokenizer(tokenizer, context=64).save_pretrained(folder)
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
        assert theirs.encode(plain(text)) == expected(plain(text))
        assert theirs.decode(theirs.encode(plain(text))) == plain(text)
        assert theirs.encode(f"a{END_OF_TEXT}b")[1] == tokenizer.end_of_text == theirs.eos_token_id


def test_the_exported_tokenizer_of_gpt2(gpt2):
    pytest.importorskip("transformers")
    theirs = to_hugging_face_tokenizer(gpt2, context=1024)
    for text in map(plain, HARD):
        assert theirs.encode(text) == gpt2.encoding.encode_ordinary(text)


# -------------------------------------------------------------------------------------------------------- text in parts


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab1'. \n\t\r\u00a0\u3000\x85\x1c東é!"), min_size=2, max_size=60), st.data())
def test_a_text_cut_where_we_cut_has_the_same_tokens(text, data):
    tokenizer = Gpt2Tokenizer(gpt2_vocabulary()) if not CACHE else CACHE[0]
    CACHE[:] = [tokenizer]
    raw = text.encode()
    cuts = [match.start() for match in text_files._CUT.finditer(raw)]
    chosen = data.draw(st.sets(st.sampled_from(cuts))) if cuts else set()
    bounds = [0, *sorted(chosen - {0}), len(raw)]
    parts = [raw[a:b].decode() for a, b in itertools.pairwise(bounds)]
    joined = [token for part in parts for token in tokenizer.encoding.encode_ordinary(part)]
    assert joined == tokenizer.encoding.encode_ordinary(text)


CACHE: list[Gpt2Tokenizer] = []


def test_a_text_file_read_in_parts_has_the_tokens_of_the_whole(tmp_path, gpt2, monkeypatch):
    monkeypatch.setattr(TextFile, "_PART", 5000)
    monkeypatch.setattr(prepare_module, "_CHARACTERS_AT_ONCE", 20_000)
    text = "\n\n".join(python_docs().splits["train"])[:150_000]
    path = tmp_path / "docs.txt"
    path.write_text(text, encoding="utf-8")
    meta = prepare(TextCorpus([path], test_size=0.1), tmp_path / "out", gpt2, 2)
    train, test = (numpy.fromfile(tmp_path / "out" / f"{s}.bin", dtype="uint16").tolist() for s in ("train", "test"))
    assert train.pop() == test.pop() == gpt2.end_of_text
    assert train + test == gpt2.encoding.encode_ordinary(text)
    assert meta["splits"]["train"]["text_bytes"] + meta["splits"]["test"]["text_bytes"] == len(text.encode())
    assert meta["splits"]["test"]["text_bytes"] == pytest.approx(0.1 * len(text.encode()), rel=0.01)


def test_rows_of_local_files(tmp_path):
    rows = [{"id": n, "story": f"story number {n}"} for n in range(100)]
    lines = tmp_path / "stories.jsonl"
    lines.write_text("\n".join(map(json.dumps, rows)))
    corpus = open_corpus(str(lines), Reading(column="story", test_size=0.1))
    assert (corpus.size("train"), corpus.size("test")) == (90, 10)
    texts = [piece.text for split in ("train", "test") for piece in corpus.pieces(split, 0)]
    assert sorted(texts) == sorted(row["story"] for row in rows)
    assert [p.text for p in corpus.pieces("train", 80)] == texts[80:90]
    again = open_corpus(str(lines), Reading(column="story", test_size=0.1))
    assert [p.text for p in again.pieces("test", 0)] == texts[90:]
    with pytest.raises(RequestError, match="name one of id, story by --column"):
        open_corpus(str(lines))


def test_parquet_and_a_saved_copy_of_the_hub(tmp_path):
    import datasets

    stories = datasets.Dataset.from_dict({"text": [f"tale {n}" for n in range(40)]})
    stories.to_parquet(str(tmp_path / "tales.parquet"))
    assert open_corpus(str(tmp_path / "tales.parquet")).size("train") == 38
    datasets.DatasetDict({"train": stories, "validation": stories.select(range(4))}).save_to_disk(tmp_path / "saved")
    corpus = open_corpus("tinystories", Reading(hub=str(tmp_path / "saved")))
    assert (corpus.size("train"), corpus.size("test")) == (40, 4)
    datasets.DatasetDict({"train": stories}).save_to_disk(tmp_path / "web")
    split = open_corpus("openwebtext", Reading(hub=str(tmp_path / "web"), test_size=0.1))
    expected = stories.train_test_split(test_size=0.1, seed=2357, shuffle=True)
    assert [piece.text for piece in split.pieces("test", 0)] == expected["test"]["text"][:]


def test_no_paragraph_of_the_test_topics_is_in_training():
    docs = python_docs()
    train, test = (
        {p.strip() for text in docs.splits[s] for p in text.split("\n\n") if p.strip()} for s in ("train", "test")
    )
    assert not train & test
    assert len(test) > 100 and len(train) > 1000


# ----------------------------------------------------------------------------------------------------- killed and wrong

SLOW_PREPARE = """
import sys, time
from pathlib import Path
from golu_lm import prepare as module
from golu_lm.text_files import TextCorpus, TextFile
from golu_lm.tokenizers import ByteTokenizer
module._CHARACTERS_AT_ONCE = 1
TextFile._PART = 2000
class Slow(ByteTokenizer):
    def encode_all(self, texts, threads):
        time.sleep(float(sys.argv[3]))
        return super().encode_all(texts, threads)
module.prepare(TextCorpus([Path(sys.argv[1])], test_size=0.2), Path(sys.argv[2]), Slow(), 1)
"""


def test_a_killed_prepare_leaves_nothing_to_train_on_and_goes_on(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text(" ".join(f"word{n}" for n in range(20_000)))
    whole = prepare(TextCorpus([text], test_size=0.2), tmp_path / "whole", ByteTokenizer(), 1)
    out, partial = tmp_path / "out", tmp_path / ".out.partial"
    positions = []
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", SLOW_PREPARE, str(text), str(out), "0.02"])
        start, before = time.monotonic(), position_in(partial)
        while position_in(partial) <= before and time.monotonic() < start + 60:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not out.exists()
        positions.append(position_in(partial))
    assert positions == sorted(set(positions)) and positions[0] > 0
    with (partial / "train.bin").open("ab") as file:  # written, but not yet in the journal
        file.write(b"torn")
    subprocess.run([sys.executable, "-c", SLOW_PREPARE, str(text), str(out), "0"], check=True)
    assert not partial.exists()
    assert json.loads((out / META_FILE).read_text()) == whole
    for name in ("train.bin", "test.bin"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def position_in(partial):
    try:
        return json.loads((partial / "journal.json").read_text())["splits"]["train"]["position"]
    except (OSError, ValueError):
        return 0


def test_another_corpus_in_the_folder_is_not_touched(tmp_path):
    documents = Documents({"train": ["a b"], "test": ["c"]}, {"package": "one"})
    first = prepare(documents, tmp_path / "x", ByteTokenizer(), 1)
    assert prepare(documents, tmp_path / "x", ByteTokenizer(), 1) == first
    documents.source = {"package": "two"}
    with pytest.raises(RequestError, match="holds other data"):
        prepare(documents, tmp_path / "x", ByteTokenizer(), 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04 what zip writes", "is a zip archive"),
        (b"ab cd " * 9000 + b"\xff" + b" ef" * 9000, "byte 54,000 is wrong"),
    ],
)
def test_a_text_that_is_none_is_named(content, message, tmp_path):
    path = tmp_path / "t.txt"
    path.write_bytes(content)
    with pytest.raises(RequestError, match=message):
        prepare(TextCorpus([path], test_size=0.0001), tmp_path / "out", ByteTokenizer(), 1)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def bins(tmp_path):
    """A folder as `prepare` leaves it, and the config that takes it."""
    documents = Documents({"train": ["some words " * 200], "test": ["other words " * 50]}, {"package": "test"})
    prepare(documents, tmp_path / "bins", ByteTokenizer(), 1)
    data = dataclasses.replace(BABYGPT_PYDOCS.data, name="bins")
    return tmp_path / "bins", dataclasses.replace(BABYGPT_PYDOCS, data=data, data_dir=tmp_path)


def test_a_prepared_folder_is_taken(bins):
    _, config = bins
    data = load_data(dataclasses.replace(config, check_data=True))
    assert (len(data.train), len(data.test), data.test_bytes) == (2201, 601, 600)
    assert data.facts["train"] == {"documents": 1, "tokens": 2201, "text_bytes": 2200}


def test_nanogpts_files_are_taken_and_its_pickle_is_never_opened(bins):
    folder, config = bins
    (folder / META_FILE).unlink()
    (folder / "test.bin").rename(folder / "val.bin")
    (folder / "meta.pkl").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    data = load_data(config)
    assert (len(data.train), len(data.test), data.test_bytes) == (2201, 601, None)


def grow(folder, name="train.bin", data=b"\x01"):
    with (folder / name).open("ab") as file:
        file.write(data)


def edit_meta(folder, **changes):
    path = folder / META_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def swap_byte(folder):
    data = bytearray((folder / "train.bin").read_bytes())
    data[100] ^= 1
    (folder / "train.bin").write_bytes(data)


DAMAGE = {
    "no folder": (lambda f: f.rename(f.with_name("elsewhere")), "there is no data folder"),
    "no train": (lambda f: (f / "train.bin").unlink(), "has no train.bin"),
    "no test": (lambda f: (f / "test.bin").unlink(), "has none of test.bin"),
    "odd size": (grow, "not a multiple of 2"),
    "empty": (lambda f: (f / "test.bin").write_bytes(b""), "is empty"),
    "one token more": (lambda f: grow(f, data=b"\x01\x00"), "lists 2,201"),
    "no JSON": (lambda f: (f / META_FILE).write_text("{"), "meta.json is damaged"),
    "no dtype": (lambda f: edit_meta(f, dtype="float99"), "meta.json is damaged"),
    "other tokenizer": (lambda f: edit_meta(f, tokenizer="gpt2"), "was tokenized by gpt2"),
    "large vocabulary": (lambda f: edit_meta(f, vocabulary=50_257), "vocabulary of 50,257"),
    "wrong dtype": (lambda f: ((f / META_FILE).unlink(), grow(f, data=b"\xff\xff")), "has token 65,535 at index 2,201"),
    "short": (lambda f: ((f / META_FILE).unlink(), (f / "test.bin").write_bytes(b"\0" * 256)), "needs at least 129"),
    "a changed token": (swap_byte, "does not have the checksum"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_tokens_are_named(damage, bins):
    folder, config = bins
    spoil, message = DAMAGE[damage]
    spoil(folder)
    with pytest.raises(RequestError, match=message):
        load_data(dataclasses.replace(config, check_data=True))


def test_a_token_out_of_range_between_the_samples_is_found_by_check_data(tmp_path):
    tokens = numpy.zeros(40 << 20, dtype=numpy.uint16)
    tokens[3_900_000] = 999
    tokens.tofile(tmp_path / "t.bin")
    split = TokenFile(tmp_path / "t.bin", "uint16")
    split.check(vocabulary=320, context=128)
    with pytest.raises(RequestError, match="token 999 at index 3,900,000"):
        split.check_all(vocabulary=320)


# ------------------------------------------------------------------------------------------------------------- windows


def test_windows_are_what_they_should_be_on_any_number_of_processes(bins):
    folder, _ = bins
    split = TokenFile(folder / "train.bin", "uint16")
    order = WindowOrder(len(split), 16, 12, seed=5, steps_per_epoch=3)
    windows = TokenWindows(split, 16)
    seen = {}
    for processes, accumulation in ((1, 1), (1, 4), (2, 3), (3, 1)):
        plan = BatchPlan(12, processes, accumulation, 12 // processes // accumulation)
        ranks = [iter(TrainBatches(order, plan, rank)) for rank in range(processes)]
        lists = [[key for _ in range(accumulation) for rank in ranks for key in next(rank)] for _ in range(3)]
        seen[processes, accumulation] = lists
    assert all(lists == seen[1, 1] for lists in seen.values())
    batch = windows.__getitems__(seen[1, 1][0])
    for row, key in zip(batch.tokens, seen[1, 1][0], strict=True):
        assert row.tolist() == split.tokens[key.sample : key.sample + 17].tolist()
    one, two = (list(order.global_batches(epoch, 0)) for epoch in (0, 1))
    assert one != two and list(order.global_batches(0, 2)) == one[2:]


def test_every_place_can_be_drawn():
    order = WindowOrder(20, 16, 400, seed=0, steps_per_epoch=1)
    assert set(next(iter(order.global_batches(0, 0)))) == {0, 1, 2, 3}


@pytest.mark.parametrize("context", [5, 16, 600])
def test_the_whole_split_predicts_each_token_once(context, bins):
    folder, _ = bins
    split = TokenFile(folder / "test.bin", "uint16")
    windows = whole_split(split, context)
    batch = windows.__getitems__([SampleKey(n, -1, n) for n in range(len(windows))])
    predicted = [row[1 : 1 + count] for row, count in zip(batch.tokens, batch.predicted.tolist(), strict=True)]
    assert torch.cat(predicted).tolist() == split.tokens[1:].tolist()
    filler = windows.__getitems__([SampleKey(0, -1, -1)])
    assert filler.predicted.tolist() == [0]
