"""Who may open a file, which encodings are read, and what is refused before it takes forever."""

from __future__ import annotations

import ast
import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import runner_in_this_process
from golu_core.regular_files import open_regular, regular_json
from golu_core.studies import sweep
from golu_core.training.messages.errors import RequestError
from golu_core.training.storage.user_files import read_lines, read_text, read_xml, read_yaml, xml_elements
from golu_core.training.storage.user_folders import visible_files
from golu_detect.layouts import find_splits
from golu_lm.cli import COMMAND_LINE as LM
from golu_translate.cli import COMMAND_LINE as TRANSLATION
from read_sets import voc, yolo

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(ROOT.glob("packages/*/src/**/*.py"))
READERS = {"golu_core/regular_files.py", "golu_core/training/storage/user_files.py"}
_METHODS = {"read_text", "read_bytes", "open"}
_FUNCTIONS = {
    "open",
    "io.open",
    "os.open",
    "json.load",
    "yaml.load",
    "yaml.safe_load",
    "tomllib.load",
    "tomllib.loads",
    "csv.reader",
    "csv.DictReader",
    "ElementTree.parse",
    "ElementTree.iterparse",
    "ElementTree.fromstring",
    "numpy.load",
    "numpy.loadtxt",
    "numpy.fromfile",
    "numpy.memmap",
    "torch.load",
    "load_file",
    "load_model",
    "safe_open",
    "pickle.load",
    "runpy.run_path",
}
CHECKED_BEFORE = "the path was checked, since a library opens it by name"
ITS_OWN = "of the installed package or the system"
OPENED = "a file that is open"
OPENS = {
    ("golu_core/_front_door.py", "stub.read_text"): ITS_OWN,
    ("golu_core/activation/compute/native.py", "SOURCE.read_bytes"): ITS_OWN,
    ("golu_core/activation/compute/kernel.py", "files(__package__).joinpath('golu.cu').read_text"): ITS_OWN,
    ("golu_core/training/runs/provenance.py", "Path('/proc/cpuinfo').read_text"): ITS_OWN,
    ("golu_core/training/tasks/command_line.py", "os.open"): ITS_OWN,
    ("golu_core/training/distributed/signals.py", "os.open"): ITS_OWN,
    ("golu_core/studies/exit_status.py", "os.open"): ITS_OWN,
    ("golu_core/cli.py", "os.open"): ITS_OWN,
    ("golu_core/training/storage/ownership.py", "os.open"): "to sync what was written",
    ("golu_core/studies/sweep.py", "tomllib.loads"): "a value of a flag",
    ("golu_core/training/data/images.py", "Image.open"): "bytes in memory",
    ("golu_core/training/data/examination.py", "Image.open"): OPENED,
    ("golu_diffusion/drawn_folder.py", "Image.open"): OPENED,
    ("golu_detect/yolo.py", "Pillow.open"): OPENED,
    ("golu_detect/video.py", "av.open"): CHECKED_BEFORE,
    ("golu_core/training/storage/weights_files.py", "load_file"): CHECKED_BEFORE,
    ("golu_core/training/storage/weights_files.py", "load_model"): CHECKED_BEFORE,
    ("golu_core/training/storage/weights_files.py", "torch.load"): CHECKED_BEFORE,
    ("golu_detect/checks.py", "Pillow.open"): OPENED,
    ("golu_core/studies/analyses/weights.py", "safe_open"): CHECKED_BEFORE,
    ("golu_lm/data.py", "numpy.memmap"): CHECKED_BEFORE,
    ("golu_translate/data.py", "numpy.memmap"): CHECKED_BEFORE,
    ("golu_translate/pairs_folder.py", "path.open"): "what this program wrote before, in its partial folder",
}


def openings(path: Path) -> Iterator[str]:
    """Calls that open a file to read it, as they are written; those that only write are left out."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        is_method = isinstance(node.func, ast.Attribute) and node.func.attr in _METHODS
        modes = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
        writes = any(isinstance(mode, str) and mode[:1] in ("w", "a", "x") for mode in modes)
        if (is_method or name in _FUNCTIONS) and not writes:
            yield name


def test_files_are_opened_by_the_readers_alone():
    found = {
        (path.relative_to(ROOT).as_posix().partition("/src/")[2], name) for path in SOURCES for name in openings(path)
    }
    elsewhere = {opening for opening in found if opening[0] not in READERS}
    assert elsewhere - OPENS.keys() == set(), "read files through user_files or regular_files"
    assert OPENS.keys() - elsewhere == set()


# ------------------------------------------------------------------------------------------------------------ encodings

LETTERS = {"gb2312": "中", "gb18030": "㐀", "big5": "中", "shift_jis": "あ", "euc-jp": "あ", "euc-kr": "한"} | {
    "iso-8859-1": "é",
    "iso-8859-15": "€",
    "windows-1251": "ж",
    "koi8-r": "ж",
    "utf-8": "é",
    "utf-16": "é",
    "utf-16-le": "é",
    "utf-32": "é",
}


@pytest.mark.parametrize("encoding", LETTERS)
def test_xml_is_read_in_the_encoding_that_it_declares(encoding, tmp_path):
    letter = LETTERS[encoding]
    path = tmp_path / "a.xml"
    path.write_bytes(f"<?xml version='1.0' encoding=\"{encoding}\"?>\n<a><b>{letter}</b></a>".encode(encoding))
    assert read_xml(path).findtext("b") == letter


@pytest.mark.parametrize("encoding", ["gb2312", "gb18030", "big5", "shift_jis", "euc-jp", "euc-kr", "utf-8"])
@pytest.mark.parametrize("filling", [0, 65_400, 70_000])
def test_xml_that_is_not_in_its_encoding_is_refused_at_its_byte(encoding, filling, tmp_path):
    """Also where a letter lies across two parts of the file."""
    path = tmp_path / "a.xml"
    before = f'<?xml version="1.0"  encoding = "{encoding}"?>\n<a><b>'.encode() + LETTERS[encoding].encode(encoding)
    before += b" " * filling
    path.write_bytes(before + b"\xff\xff</b></a>")
    known = rf"a\.xml is not {encoding.upper()} text: byte {len(before):,} is wrong"
    with pytest.raises(RequestError, match=known):
        read_xml(path)


def test_classes_in_gb2312_are_the_classes(tmp_path):
    voc(tmp_path / "mine")
    for path in (tmp_path / "mine" / "Annotations").iterdir():
        path.write_bytes(path.read_text().replace("UTF-8", "GB2312").replace("é", "猫").encode("gb2312"))
    assert "猫" in find_splits(tmp_path / "mine", None)[0].annotations.categories.values()


WRONG_XML = {
    "an unknown encoding": ("<?xml version='1.0' encoding='klingon'?><a/>", "declares the encoding klingon"),
    "a codec that is none of text": ("<?xml version='1.0' encoding='hex'?><a/>", "declares the encoding hex"),
    "an entity": ("<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>", "it has the entity 'x'"),
    "an entity of a file": ("<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><a>&x;</a>", "the entity 'x'"),
    "an entity of a missing DTD": ("<!DOCTYPE a SYSTEM 'a.dtd'><a>&x;</a>", "it has the entity 'x'"),
    "a torn file": ("<a><b>", "cannot be read as XML"),
    "nothing": ("", "cannot be read as XML"),
}


@pytest.mark.parametrize("case", WRONG_XML)
def test_wrong_xml_is_one_message(case, tmp_path):
    content, message = WRONG_XML[case]
    path = tmp_path / "a.xml"
    path.write_text(content)
    with pytest.raises(RequestError, match=message):
        read_xml(path)


def test_xml_is_what_python_reads(tmp_path):
    """Names with namespaces, attributes, text and tails, against ElementTree's own parser."""
    from xml.etree import ElementTree

    content = '<a xmlns="u:v" xml:lang="de">x<b c="1&lt;">y<!-- no --></b>z<![CDATA[<&]]><d/>&amp;</a>'
    path = tmp_path / "a.xml"
    path.write_text(content)
    assert ElementTree.tostring(read_xml(path)) == ElementTree.tostring(ElementTree.fromstring(content))
    ended = [element.tag for element in xml_elements(io.BytesIO(content.encode()), path, "x")]
    assert ended == [element.tag for _, element in ElementTree.iterparse(io.BytesIO(content.encode()))]


def test_a_line_end_is_what_python_takes_for_one(tmp_path):
    content = "a\r\nb\rc\nd\u2028e\x0cf\n"
    path = tmp_path / "a.txt"
    path.write_bytes(content.encode())
    with path.open(newline=None) as file:
        assert read_lines(path)[:-1] == [line.rstrip("\n") for line in file]


def test_a_refusal_names_the_byte_and_the_line(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("one\ntwo é\n".encode("latin-1"))
    with pytest.raises(RequestError, match=r"a\.txt, line 2, is not UTF-8 text: byte 8 is wrong; save it as UTF-8"):
        read_text(path)
    path.write_bytes("one\ntwo".encode("utf-16-le"))
    with pytest.raises(RequestError, match=r"line 1, is not text: byte 1 is NUL; if it is UTF-16 without"):
        read_text(path)
    path.write_bytes(b"x" * 11)
    with pytest.raises(RequestError, match=r"a\.txt has more than 10 bytes"):
        read_text(path, most=10)


# --------------------------------------------------------------------------------------------------------------- bounds


def test_aliases_of_aliases_are_refused_at_once(tmp_path):
    rows = [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    for content in ("a: &a [x, x]\n" + "\n".join(rows) + "\nnames: *i\n", "a: &a\n  b: *a\n", "a: &a [*a]\n"):
        path = tmp_path / "data.yaml"
        path.write_text(content)
        with pytest.raises(RequestError, match="aliases that stand for more than 100,000 values"):
            read_yaml(path)


def test_aliases_that_stand_for_little_are_read(tmp_path):
    path = tmp_path / "data.yaml"
    path.write_text("d: &d {train: x}\nnames: &n [a, b]\nothers: [*n, *n]\n<<: *d\n")
    assert read_yaml(path)["train"] == "x" and read_yaml(path)["others"] == [["a", "b"]] * 2
    path.write_text(f"names: [{', '.join(f'n{n}' for n in range(2000))}]\n")
    assert len(read_yaml(path)["names"]) == 2000


def test_a_label_that_is_no_file_is_not_an_image_without_objects(tmp_path):
    yolo(tmp_path / "mine")
    label = tmp_path / "mine" / "labels" / "train" / "a.txt"
    label.unlink()
    assert not find_splits(tmp_path / "mine", None)[0].annotations.objects
    for make in (label.mkdir, lambda: label.symlink_to("gone.txt"), lambda: os.mkfifo(label)):
        make()
        with pytest.raises(RequestError, match=r"a\.txt"):
            find_splits(tmp_path / "mine", None)
        label.rmdir() if label.is_dir() else label.unlink()


def test_a_path_that_becomes_a_pipe_after_its_check_does_not_block(tmp_path, monkeypatch):
    path = tmp_path / "a"
    os.mkfifo(path)
    regular = os.stat(__file__)
    monkeypatch.setattr(os, "stat", lambda *_, **__: regular)
    with pytest.raises(OSError, match="it is a pipe, not a file"):
        open_regular(path)


def test_a_name_with_nul_and_deep_json_are_refused(tmp_path):
    with pytest.raises(OSError, match="no file can have this name"):
        open_regular("a\0b")
    path = tmp_path / "a.json"
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        regular_json(path)


def test_a_folder_that_cannot_be_read_is_not_left_out(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "b.png").touch()
    real = os.scandir

    def refuse(path):
        if str(path).endswith("/a"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(RequestError, match=r"the folder .*/a cannot be read: Permission denied"):
        visible_files(tmp_path)


# ------------------------------------------------------------------------------------------------------- command lines


@pytest.mark.parametrize("line", [LM, TRANSLATION], ids=lambda line: line.program)
def test_a_pipe_on_a_command_line_is_one_message(line, tmp_path, monkeypatch, capfd):
    """As `<(zcat corpus.gz)` of a shell is one."""
    os.mkfifo(tmp_path / "a.txt")
    done = runner_in_this_process(line, monkeypatch, capfd)("prepare", "a.txt", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    message = "a.txt cannot be read: it is a pipe, not a file: write its content to a file first"
    assert done.stderr == f"{line.program}: {message}\n"


def test_a_study_that_is_a_pipe_is_one_message(tmp_path, monkeypatch, capsys):
    os.mkfifo(tmp_path / "mine.toml")
    monkeypatch.chdir(tmp_path)
    assert sweep.main(["mine.toml", "--print"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
