"""Pairs of sentences as people have them: read right, or refused in one message; and cut as other programs cut them."""

from __future__ import annotations

import bz2
import gzip
import itertools
import json
import lzma
import re
from pathlib import Path

import numpy
import pytest

from command_line import runner_in_this_process
from golu_core.training.messages.errors import RequestError
from golu_translate import pairs_folder as preparation
from golu_translate.cli import COMMAND_LINE
from golu_translate.data import codec_of
from golu_translate.number_words import amounts, number_words
from golu_translate.pairs_folder import Cutting, prepare_pairs
from golu_translate.parallel_text import Languages, listed, own_pairs, wmt14
from golu_translate.subwords import Subwords, Words, learn_subwords
from golu_translate.vocabulary import END, SYMBOLS, UNKNOWN
from translation_program import EN_DE, pairs, prepared

PAIRS = [
    ("A cat.", "Eine Katze."),
    ("Two dogs – both “big”.", "Zwei Hunde – beide „groß“."),
    ("5 < 7 & 9", "5 < 7 & 9"),
]
SOURCE, TARGET = ("\n".join(side) + "\n" for side in zip(*PAIRS, strict=True))
TMX = """<?xml version="1.0" encoding="UTF-8"?>
<tmx version="1.4"><header/><body>
<tu><tuv xml:lang="en-US"><seg>A cat.</seg></tuv><tuv xml:lang="DE"><seg>Eine Katze.</seg></tuv></tu>
<tu><tuv lang="de"><seg>Zwei Hunde – beide „groß“.</seg></tuv><tuv lang="en"><seg>Two dogs –
  both <bpt i="1"/>“big”.</seg></tuv><tuv xml:lang="fr"><seg>Deux chiens.</seg></tuv></tu>
<tu><tuv xml:lang="en"><seg>Nobody translated this.</seg></tuv></tu>
<tu><tuv xml:lang="en"><seg>5 &lt; 7 &amp; 9</seg></tuv><tuv xml:lang="de"><seg>5 &lt; 7 &amp; 9</seg></tuv></tu>
</body></tmx>
"""


def files(folder: Path, **contents: str | bytes) -> Path:
    """A folder of files; `train__en` is called `train.en`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        data = content.encode() if isinstance(content, str) else content
        (folder / name.replace("__", ".")).write_bytes(data)
    return folder


READABLE = {
    "two files": lambda f: files(f, train__en=SOURCE, train__de=TARGET),
    "windows line ends": lambda f: files(
        f, train__en=SOURCE.replace("\n", "\r\n"), train__de=TARGET.replace("\n", "\r\n")
    ),
    "byte order marks": lambda f: files(f, train__en="\ufeff" + SOURCE, train__de="\ufeff" + TARGET),
    "no newline at the end": lambda f: files(f, train__en=SOURCE.rstrip("\n"), train__de=TARGET),
    "utf-16": lambda f: files(f, train__en=SOURCE.encode("utf-16"), train__de=TARGET),
    "gzip": lambda f: files(f, train__en__gz=gzip.compress(SOURCE.encode()), train__de=TARGET),
    "bzip2 and xz": lambda f: files(
        f, train__en__bz2=bz2.compress(SOURCE.encode()), train__de__xz=lzma.compress(TARGET.encode())
    ),
    "tsv in a folder": lambda f: files(f, train__tsv="".join(f"{a}\t{b}\n" for a, b in PAIRS)),
    "a tsv file": lambda f: files(f, mine__tsv="".join(f"{a}\t{b}\n" for a, b in PAIRS)) / "mine.tsv",
    "a tmx file": lambda f: files(f, mine__tmx=TMX) / "mine.tmx",
    "other files beside": lambda f: files(f, train__en=SOURCE, train__de=TARGET, train__fr="x\n", README__md="x"),
}


@pytest.mark.parametrize("kind", READABLE)
def test_pairs_are_read(kind, tmp_path):
    text = own_pairs(READABLE[kind](tmp_path / "text"), EN_DE)
    assert list(text.pairs("train")) == PAIRS
    assert text.counts == {"train": 3}


def test_unicode_line_separators_do_not_end_a_line(tmp_path):
    odd = "one\u2028two\x0bthree\x85four\n"
    text = own_pairs(files(tmp_path / "text", train__en=odd, train__de="eins\n"), EN_DE)
    assert list(text.pairs("train")) == [(odd.rstrip("\n"), "eins")]


MALFORMED = {
    "unequal lines": ({"train__en": SOURCE, "train__de": "Eine Katze.\n"}, r"train.de has 1 lines, and .*train.en 3"),
    "one side": ({"train__en": SOURCE}, "has no file of the other language beside it"),
    "no file": ({"a__txt": "x"}, "has no train.en and train.de"),
    "latin-1": ({"train__en": SOURCE, "train__de": TARGET.encode("cp1252")}, r"train.de, line 2, is not UTF-8"),
    "NUL": ({"train__en": SOURCE.encode("utf-16-le"), "train__de": TARGET}, r"train.en, line 1, is not text: byte 1"),
    "empty files": ({"train__en": "", "train__de": ""}, "has no pair of en-de"),
    "a tab in a sentence": ({"train__tsv": "a\tb\tc\n"}, r"line 1, has 2 tabs"),
    "no tab": ({"train__tsv": "a b\n"}, r"line 1, has 0 tabs"),
    "no xml": ({"train__tmx": "hello"}, "is not a TMX file"),
    "torn xml": ({"train__tmx": TMX[:-40]}, "is not a TMX file"),
    "other languages": ({"train__tmx": TMX.replace('"de"', '"da"').replace('"DE"', '"da"')}, "has no pair of en-de"),
    "twice": ({"train__en": SOURCE, "train__de": TARGET, "train__tsv": "a\tb\n"}, "has its train split more than once"),
    "packed and not": ({"train__en": SOURCE, "train__de": TARGET, "train__en__gz": b"x"}, "has both"),
    "torn gzip": (
        {"train__en__gz": gzip.compress(SOURCE.encode() * 99)[:-9], "train__de": TARGET * 99}, "cannot be unpacked"),
    "empty sides alone": ({"train__en": "\n\n", "train__de": "a\nb\n"}, "no pair is left"),
    "an empty side in the test": (
        {"train__en": SOURCE * 9, "train__de": TARGET * 9, "valid__tsv": "a\tb\n", "test__tsv": "a\tb\n\tb\n"},
        "pair 2 of the test split has an empty side",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_pairs_are_one_message_and_nothing_is_written(kind, tmp_path, monkeypatch, capfd):
    contents, message = MALFORMED[kind]
    folder = files(tmp_path / "text", **contents)
    (tmp_path / "cwd").mkdir()
    run = runner_in_this_process(COMMAND_LINE, monkeypatch, capfd)
    done = run("prepare", str(folder), "--pair", "en-de", "--num-workers", "1", cwd=tmp_path / "cwd")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert sum(line.startswith("golu-translate: ") for line in done.stderr.splitlines()) == 1
    assert re.search(message, done.stderr), done.stderr
    assert [path for path in (tmp_path / "cwd").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("pair", ["english", "en-", "en-en", "EN-DE", "en-de-fr", "e1-de"])
def test_a_wrong_pair_is_refused(pair):
    with pytest.raises(RequestError, match="two languages"):
        Languages.parsed(pair)


# ------------------------------------------------------------------------------------------------------- preparation


def rows(folder: Path, split: str, side: str) -> list[list[int]]:
    found: list[list[int]] = [[]]
    for number in numpy.fromfile(folder / f"{split}.{side}.bin", numpy.uint16).tolist():
        found[-1].append(number)
        if number == END:
            found.append([])
    return found[:-1]


def test_prepared_subwords_are_the_text(tmp_path):
    folder = prepared(tmp_path)
    meta = json.loads((folder / "meta.json").read_text())
    codec = codec_of(folder / "subwords.json", EN_DE, Cutting(vocabulary=128))
    assert meta["vocabulary"] == codec.subwords.size <= 128
    for split, expected in pairs().items():
        for n, side in enumerate(("en", "de")):
            found = rows(folder, split, side)
            texts = [codec.subwords.words(numbers[:-1]) for numbers in found]
            assert texts == [Words(side).cut(pair[n]) for pair in expected]
            assert meta["splits"][split]["subwords"][n] == sum(map(len, found))
    assert [codec.text(numbers[:-1]) for numbers in rows(folder, "test", "de")] == [p[1] for p in pairs()["test"]]


def test_processes_and_blocks_change_nothing(tmp_path, monkeypatch):
    one = prepared(tmp_path / "one")
    monkeypatch.setattr(preparation, "_PAIRS_AT_ONCE", 17)
    monkeypatch.setattr(preparation, "_LINES_OF_A_TASK", 5)
    text = listed(pairs(), {"test": 3})
    prepare_pairs(text, EN_DE, tmp_path / "two" / "numbers-en-de", Cutting(vocabulary=128), 2)
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "two" / "numbers-en-de").iterdir())
    for name in names:
        assert (one / name).read_bytes() == (tmp_path / "two" / "numbers-en-de" / name).read_bytes(), name


class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    "stop_at", [pytest.param(n, marks=() if n % 12 == 1 else pytest.mark.slow) for n in range(1, 60, 2)]
)
def test_a_killed_preparation_is_continued(stop_at, tmp_path, monkeypatch):
    """Killed before one of the writes, at any stage: the same command ends with the same bytes."""
    whole = prepared(tmp_path / "whole")
    monkeypatch.setattr(preparation, "_PAIRS_AT_ONCE", 23)
    place, text = tmp_path / "numbers-en-de", listed(pairs(), {"test": 3})
    count = 0
    append, note = preparation._Preparation._append_bytes, preparation._Preparation._note

    def killed(function):
        def call(*arguments):
            nonlocal count
            count += 1
            if count == stop_at:
                raise Killed
            return function(*arguments)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(preparation._Preparation, "_append_bytes", killed(append))
        patch.setattr(preparation._Preparation, "_note", killed(note))
        patch.setattr(preparation, "learn_subwords", killed(learn_subwords))
        try:
            prepare_pairs(text, EN_DE, place, Cutting(vocabulary=128), 1)
        except Killed:
            assert not place.exists()
    prepare_pairs(text, EN_DE, place, Cutting(vocabulary=128), 1)
    for path in whole.iterdir():
        assert path.read_bytes() == (place / path.name).read_bytes(), path.name
    assert sorted(p.name for p in tmp_path.iterdir()) == ["numbers-en-de", "whole"]


def test_missing_splits_are_cut_off_without_a_leak(tmp_path):
    """By the source's checksum: a sentence that stands in the text twice is in one split."""
    found = amounts(900, seed=5)
    halves = [(source, "") for source, _ in amounts(900, seed=6)]  # are left out, wherever they would go
    text = listed({"train": [*found, *found[:300], *halves]}, {})
    folder = tmp_path / "own"
    prepare_pairs(text, EN_DE, folder, Cutting(vocabulary=128), 1)
    splits = {split: {tuple(row) for row in rows(folder, split, "en")} for split in ("train", "valid", "test")}
    assert sum(map(len, splits.values())) == 900
    assert len((folder / "test.de").read_text().splitlines()) == len(rows(folder, "test", "de"))
    assert not splits["train"] & (splits["valid"] | splits["test"]) and not splits["valid"] & splits["test"]
    assert all(2 <= len(splits[name]) <= 25 for name in ("valid", "test"))


def test_training_pairs_are_left_out_by_length_and_ratio_and_counted(tmp_path):
    text = listed(
        {**pairs(), "train": [*pairs()["train"], ("one", ""), ("", "eins"), ("two " * 90, "zwei"), ("x", "y " * 9)]}, {}
    )
    cutting = Cutting(vocabulary=128, most_subwords=60, most_ratio=8.0)
    meta = prepare_pairs(text, EN_DE, tmp_path / "own", cutting, 1)
    assert meta["splits"]["train"]["pairs"] == len(pairs()["train"])
    assert sorted(meta["splits"]["train"]["left_out"].values()) == [1, 1, 2]
    assert meta["read"]["train"] == len(pairs()["train"]) + 4
    long = listed({**pairs(), "test": [("two " * 90, "zwei " * 90)]}, {})  # a test keeps what training leaves out
    meta = prepare_pairs(long, EN_DE, tmp_path / "long", cutting, 1)
    assert meta["splits"]["test"]["pairs"] == 1


def test_other_pairs_are_not_written_over(tmp_path):
    folder = prepared(tmp_path)
    with pytest.raises(RequestError, match="holds other data"):
        prepare_pairs(listed(pairs(), {"test": 3}), EN_DE, folder, Cutting(vocabulary=256), 1)


@pytest.mark.parametrize("name", ["train.txt", "test.fr", "notes.md"])
def test_overwrite_leaves_other_peoples_files(name, tmp_path, monkeypatch, capfd):
    """Also where a file is called as a split of ours."""
    folder = files(tmp_path / "text", train__tsv="".join(f"{a}\t{b}\n" for a, b in pairs()["train"]))
    for split in ("valid", "test"):
        files(folder, **{f"{split}__tsv": "".join(f"{a}\t{b}\n" for a, b in pairs()[split])})
    run = runner_in_this_process(COMMAND_LINE, monkeypatch, capfd)
    arguments = ("prepare", str(folder), "--pair", "en-de", "--num-workers", "1", "--vocabulary", "128")
    assert run(*arguments, cwd=tmp_path).returncode == 0
    assert run(*arguments, "--overwrite", cwd=tmp_path).returncode == 0
    (tmp_path / "data" / "text-en-de" / name).write_text("mine")
    done = run(*arguments, "--overwrite", cwd=tmp_path)
    assert done.returncode == 2 and name in done.stderr
    assert (tmp_path / "data" / "text-en-de" / name).read_text() == "mine"


def test_the_hubs_form_of_wmt14(tmp_path):
    datasets = pytest.importorskip("datasets")
    columns = {"translation": [{"en": a, "de": b} for a, b in PAIRS]}
    data = datasets.DatasetDict({name: datasets.Dataset.from_dict(columns) for name in ("train", "validation", "test")})
    data.save_to_disk(str(tmp_path / "wmt14"))
    text = wmt14(str(tmp_path / "wmt14"), None, EN_DE)
    assert {split: list(text.pairs(split)) for split in text.readers} == dict.fromkeys(
        ("train", "valid", "test"), PAIRS
    )
    turned = wmt14(str(tmp_path / "wmt14"), None, Languages("de", "en"))
    assert list(turned.pairs("test")) == [(b, a) for a, b in PAIRS]


def test_numbers_of_the_test_never_occur_in_training():
    text = number_words()
    euros = {split: {pair[0].split(" euros")[0] for pair in text.pairs(split)} for split in text.readers}
    assert {split: len(found) for split, found in euros.items()} == text.counts
    assert not euros["train"] & euros["test"] and not euros["train"] & euros["valid"]
    cents = {pair[0].split("euros and ")[1].removesuffix(" cents") for pair in text.pairs("train")}
    assert not cents & euros["test"]


# ---------------------------------------------------------------------------------------------------- words, subwords


@pytest.mark.parametrize("language", ["en", "de"])
@pytest.mark.parametrize("dashes", [False, True])
def test_words_are_moses(language, dashes):
    from sacremoses import MosesDetokenizer, MosesTokenizer

    words = Words(language, aggressive_dashes=dashes)
    for text in (
        "He said: \"It's 3.5 % – well-known, isn't it?\" & left.",
        "z. B. am 3. Mai 2014, „groß“",
        "<a> [b] |c|",
    ):
        expected = MosesTokenizer(language).tokenize(text, return_str=True, aggressive_dash_splits=dashes)
        assert words.cut(text) == expected
        assert words.join(words.cut(text)) == MosesDetokenizer(language).detokenize(expected.split())


def test_what_is_not_printed_parts_words():
    assert Words("en").cut("a\x00b\u200bc\u2028d\te\u00a0 f") == "a b c d e f"
    assert Words("en", moses=False).cut("  a,\t b ") == "a, b"


def test_nothing_in_a_text_is_a_symbol(tmp_path):
    path = tmp_path / "subwords.json"
    learn_subwords(lambda: ["</s> <unk> <pad> <s>"] * 5 + ["two words"] * 9, 100, path)
    subwords = Subwords(path)
    (found,) = subwords.encode(["</s> <pad> words"])
    assert all(number >= len(SYMBOLS) for number in found)
    assert subwords.words(found.tolist()) == "</s> <pad> words"
    (unknown,) = subwords.encode(["words 漢"])
    assert unknown.tolist()[-1] == UNKNOWN and subwords.words(unknown.tolist()) == "words <unk>"


def test_subwords_are_learned_the_same_every_time(tmp_path):
    lines = [side for pair in amounts(300, seed=9) for side in pair]
    for name in ("one", "two", "three", "four"):
        learn_subwords(lambda: lines, 200, tmp_path / name)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def merged_by_hand(word: str, merges: list[tuple[str, str]]) -> list[str]:
    """Sennrich et al., 2016, algorithm 1: of all neighbors the pair that was learned first, until none is left."""
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    parts = [*word[:-1], word[-1] + "</w>"]
    while True:
        known = [(ranks[pair], n) for n, pair in enumerate(itertools.pairwise(parts)) if pair in ranks]
        if not known:
            return parts
        pair = merges[min(known)[0]]
        merged, n = [], 0
        while n < len(parts):
            if n + 1 < len(parts) and (parts[n], parts[n + 1]) == pair:
                merged.append(parts[n] + parts[n + 1])
                n += 2
            else:
                merged.append(parts[n])
                n += 1
        parts = merged


def test_words_are_merged_as_published(tmp_path):
    lines = [side for pair in amounts(300, seed=9) for side in pair]
    learn_subwords(lambda: lines, 200, tmp_path / "subwords.json")
    subwords = Subwords(tmp_path / "subwords.json")
    for word in {word for line in lines for word in line.split()}:
        (found,) = subwords.encode([word])
        expected = [subwords.vocabulary[part] for part in merged_by_hand(word, [tuple(m) for m in subwords.merges])]
        assert found.tolist() == expected, word


@pytest.mark.parametrize(
    "content", ["", "{}", '{"vocabulary": {}, "merges": []}', '{"vocabulary": {"a": 0}, "merges": [["a"]]}']
)
def test_a_damaged_vocabulary_is_named(content, tmp_path):
    path = tmp_path / "subwords.json"
    path.write_text(content)
    with pytest.raises(RequestError, match=r"subwords.json is damaged"):
        Subwords(path)


def test_pairs_need_a_name(tmp_path, monkeypatch, capfd):
    run = runner_in_this_process(COMMAND_LINE, monkeypatch, capfd)
    done = run("prepare", "--pair", "en-de", cwd=tmp_path)
    assert done.returncode == 2 and "DATASET" in done.stderr
    done = run("prepare", "--help", cwd=tmp_path)
    assert "--max-ratio" in done.stdout


def test_the_cutting_of_the_flags_is_that_of_the_recipe():
    from golu_translate.prepare import PrepareFlags

    flags = PrepareFlags("wmt14", max_subwords=9, max_ratio=1.5, moses=False)
    assert PrepareFlags("wmt14").cutting == Cutting()
    assert flags.cutting == Cutting(most_subwords=9, most_ratio=1.5, moses=False)
