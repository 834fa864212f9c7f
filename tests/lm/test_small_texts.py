"""Texts with next to nothing in them, or with all of it on one line, in every format and command that reads a text."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from golu_lm.cli import COMMAND_LINE
from golu_lm.own_files import PLAIN, TABLES

ROWS = {
    "nothing": [],
    "one empty row": [""],
    "blank rows": ["", "", ""],
    "one character": ["a"],
    "one row": ["There is one row of text."],
    "two rows": ["There is one row.", "And another."],
    "one long row": ["words " * 100_000],
    "one long word": ["x" * 400_000],
}


def write_csv(path: Path, rows: list[str], separator: str = ",") -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=separator).writerows([["text"], *([row] for row in rows)])


WRITERS: dict[str, Callable[[Path, list[str]], object]] = {
    ".jsonl": lambda path, rows: path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows)),
    ".json": lambda path, rows: path.write_text(json.dumps([{"text": row} for row in rows])),
    ".csv": write_csv,
    ".tsv": lambda path, rows: write_csv(path, rows, "\t"),
    ".parquet": lambda path, rows: pyarrow.parquet.write_table(pyarrow.table({"text": rows}), path),
} | dict.fromkeys(PLAIN, lambda path, rows: path.write_text("".join(row + "\n" for row in rows)))
COMMANDS: dict[str, Callable[[str], list[str]]] = {
    "prepare": lambda name: ["prepare", name, "--tokenizer", "bytes", "--num-workers", "1"],
    "prepare a large test split": lambda name: [
        "prepare", name, "--tokenizer", "bytes", "--num-workers", "1", "--test-size", "0.99"
    ],
    "train": lambda name: [
        "train", "babygpt-text", "--data.text", name, "--data.tokenizer", "bytes", "--dry-run", "--num-workers", "0"
    ],
}  # fmt: skip


def test_every_format_has_a_writer():
    assert set(WRITERS) == {*TABLES, *PLAIN}


def is_done_or_refused(words: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> int:
    """Return the status of a command: 0, or 2 with one message and nothing written."""
    before = files_below(folder)
    status = COMMAND_LINE.main(words)
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("golu-lm: ")]
    assert (status, len(told)) in ((0, 0), (2, 1)), told
    assert status == 0 or files_below(folder) == before
    return status


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("kind", ROWS)
def test_a_small_text_is_prepared_or_refused(kind, suffix, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    WRITERS[suffix](Path(f"mine{suffix}"), ROWS[kind])
    statuses = [is_done_or_refused(words(f"mine{suffix}"), tmp_path, capsys) for words in COMMANDS.values()]
    if kind == "nothing" or (kind == "one row" and suffix in TABLES):
        assert statuses == [2, 2, 2]


@pytest.mark.parametrize("kind", ROWS)
def test_small_pairs_are_prepared_or_refused(kind, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = [row[:20_000] for row in ROWS[kind]]  # byte pairs of longer words take minutes to be learned
    for folder, splits in {"train": ["train"], "all": ["train", "valid", "test"]}.items():
        Path(folder).mkdir()
        for split, side in itertools.product(splits, ("en", "de")):
            (Path(folder) / f"{split}.{side}").write_text("".join(line + "\n" for line in lines))
    Path("mine.tsv").write_text("".join(f"{line}\t{line}\n" for line in lines))
    Path("mine.tmx").write_text(
        "<tmx><body>"
        + "".join(
            f"<tu><tuv xml:lang='en'><seg>{line}</seg></tuv><tuv xml:lang='de'><seg>{line}</seg></tuv></tu>"
            for line in lines
        )
        + "</body></tmx>"
    )
    for name in ("train", "all", "mine.tsv", "mine.tmx"):
        words = ["prepare-pairs", name, "--vocabulary", "64", "--num-workers", "1", "--name", f"of-{name}"]
        is_done_or_refused(words, tmp_path, capsys)
