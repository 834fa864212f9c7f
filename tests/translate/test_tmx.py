"""TMX 1.4b: each inline element as the standard has it, and units with several variants of a language."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from command_line import runner_in_this_process
from golu_core.training.messages.errors import RequestError
from golu_translate.cli import COMMAND_LINE
from golu_translate.parallel_text import own_pairs
from translation_program import EN_DE

# section "Content markup" of the standard, with what each element may hold: codes of another format, or text
STANDARD = {"bpt": "codes", "ept": "codes", "it": "codes", "ph": "codes", "ut": "codes", "hi": "text"}


def tmx(folder: Path, *units: str) -> Path:
    """A file of units, each the variants as XML."""
    path = folder / "mine.tmx"
    body = "".join(f"<tu>{unit}</tu>" for unit in units)
    path.write_text(f'<?xml version="1.0"?><tmx version="1.4"><header/><body>{body}</body></tmx>')
    return path


def variant(language: str, sentence: str) -> str:
    return f'<tuv xml:lang="{language}"><seg>{sentence}</seg></tuv>'


def read(folder: Path, sentence: str) -> str:
    path = tmx(folder, variant("en", sentence) + variant("de", "Ja."))
    ((found, _),) = own_pairs(path, EN_DE).pairs("train")
    return found


@pytest.mark.parametrize("name", STANDARD)
@pytest.mark.parametrize("inside", ["&lt;b&gt;", "&lt;a title='<sub>Go</sub>'&gt;", "a<sub>b<ph>c</ph>d</sub>e"])
def test_what_an_inline_element_holds(name, inside, tmp_path):
    if STANDARD[name] == "codes":
        assert read(tmp_path, f"Press <{name} i='1'>{inside}</{name}>Start<{name}/> now.") == "Press Start now."
        assert read(tmp_path, f"One <hi>two <{name}>{inside}</{name}>three</hi> four") == "One two three four"
    else:
        assert read(tmp_path, f"Press <{name} type='b'>the <{name}>big</{name}> one</{name}> now.") == (
            "Press the big one now."
        )


@pytest.mark.parametrize("kind", ["lb", "pb", "cb"])
def test_a_break_parts_words(kind, tmp_path):
    assert read(tmp_path, f"one<ph type='{kind}'>&lt;br/&gt;</ph>two") == "one two"
    assert read(tmp_path, "un<ph type='image'>&lt;img/&gt;</ph>done") == "undone"


@pytest.mark.parametrize("name", ["b", "x", "g", "sub"])
def test_an_element_that_tmx_does_not_have_there_is_refused(name, tmp_path):
    with pytest.raises(RequestError, match=f"has <{name}> in a sentence"):
        read(tmp_path, f"Press <{name}>Start</{name}> now.")


def test_what_is_left_out_is_said(tmp_path, monkeypatch, capfd):
    codes = variant("en", "A <bpt i='1'>&lt;b&gt;</bpt>cat<ept i='1'>&lt;/b&gt;</ept>.") + variant("de", "Eine Katze.")
    variants = (
        variant("en-US", "Fall.")
        + variant("en-GB", "Autumn.")
        + variant("en-AU", "x")
        + variant("de", "Herbst.")
        + variant("fr", "x")
    )
    plain = [variant("en", f"Number {n}.") + variant("de", f"Nummer {n}.") for n in range(400)]
    path = tmx(tmp_path, codes, variants, *plain)
    text = own_pairs(path, EN_DE)
    assert list(text.pairs("train"))[:2] == [("A cat.", "Eine Katze."), ("Fall.", "Herbst.")]
    run = runner_in_this_process(COMMAND_LINE, monkeypatch, capfd)
    done = run("prepare", str(path), "--pair", "en-de", "--num-workers", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"note: inline codes were left out of sentences of {path}: 1 in all" in done.stdout
    assert f"note: the first of several variants of en was used in units of {path}: 1 in all" in done.stdout


def test_a_file_without_either_is_prepared_as_before(tmp_path):
    path = tmx(tmp_path, variant("en", "A cat.") + variant("de", "Eine Katze."))
    text = own_pairs(path, EN_DE)
    assert set(text.source) == {"path", "sha256"} and not text.remarks


def test_files_of_a_folder_that_are_not_used_are_named(tmp_path):
    for name in ("train.en", "train.de", "notes.txt", "train.fr", "old.xliff", "more.docx"):
        (tmp_path / name).write_text("x\n")
    (remark,) = own_pairs(tmp_path, EN_DE).remarks
    assert re.search(r"has 4 files that are not used \(.*\), such as more.docx, notes.txt, old.xliff$", remark)
