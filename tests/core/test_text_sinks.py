"""Text from outside reaches each sink as it is, and nothing obeys it; docs/names.md is the table of both."""

from __future__ import annotations

import ast
import csv
import io
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt
from PIL import Image

import name_table
from golu_core.studies.reporting.page import template
from golu_core.training.figures.drawing import new_figure, save_png
from golu_core.training.messages import text_sinks
from golu_core.training.messages.text_sinks import (
    LONGEST_NAME,
    console,
    csv_text,
    file_name,
    fitting_name,
    latex_text,
    markdown_text,
    prepare_streams,
    printable,
    say,
    say_data,
    visible,
    yaml_value,
)
from golu_core.training.storage.locks import only_writer
from golu_core.training.storage.ownership import discard, new_folder, write_json
from hostile_names import HOSTILE_NAMES, assert_harmless

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(ROOT.glob("packages/*/src/**/*.py"))
NAMES = list(HOSTILE_NAMES.values())
each_name = pytest.mark.parametrize("name", NAMES, ids=HOSTILE_NAMES)


# ------------------------------------------------------------------------------------------------------------ terminal


class Stream(io.TextIOWrapper):
    """Standard output of an encoding, a terminal or not."""

    def __init__(self, encoding: str, terminal: bool) -> None:
        super().__init__(io.BytesIO(), encoding=encoding)
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal

    def text(self) -> str:
        self.flush()
        written: bytes = self.buffer.getvalue()  # type: ignore[attr-defined]
        return written.decode(self.encoding)


@pytest.fixture
def streams(monkeypatch):
    """A function that puts streams in the place of standard output and error."""

    def put(encoding: str = "utf-8", terminal: bool = False) -> tuple[Stream, Stream]:
        both = Stream(encoding, terminal), Stream(encoding, terminal)
        monkeypatch.setattr("sys.stdout", both[0])
        monkeypatch.setattr("sys.stderr", both[1])
        monkeypatch.setattr(text_sinks, "_said", set())
        prepare_streams()
        return both

    return put


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252"])
@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_obeys_nothing(encoding, terminal, streams):
    out, err = streams(encoding, terminal)
    for name in NAMES:
        say(name)
        say(printable(name))
        text_sinks.complain(f"warning: {name}")
    assert_harmless(out.text(), err.text())
    if encoding == "utf-8":
        assert all(f"{visible(name)}\n" in out.text() for name in NAMES)


@pytest.mark.parametrize("terminal", [True, False])
def test_results_are_exact_in_files_and_harmless_on_terminals(terminal, streams):
    out, err = streams("utf-8", terminal)
    for name in NAMES:
        say_data(name, end="\0")
    said = out.text().split("\0")[:-1]
    if terminal:
        assert_harmless(*said)
    else:
        assert said == [name.encode("utf-8", "backslashreplace").decode() for name in NAMES]
    assert err.text() == ""


def test_results_that_an_encoding_lacks_are_escaped_with_a_warning(streams):
    out, err = streams("ascii")
    for name in ("plain", "\u732b", "\u72ac"):
        say_data(name)
    assert out.text() == "plain\n\\u732b\n\\u72ac\n"
    assert err.text().count("warning: standard output is ascii") == 1


@each_name
def test_richs_console_prints_names_as_they_are(name, streams):
    from rich.table import Table

    out, _ = streams("utf-8")
    table = Table(name, title=name, box=None)
    table.add_row(name)
    console(width=1000).print(name)
    console(width=1000).print(table)
    assert_harmless(out.text())
    (plain, *rest) = visible(name).split("\n")
    assert out.text().count(plain.strip()) >= 4, rest


# --------------------------------------------------------------------------------------------------------------- texts


def test_csv_gives_back_every_value():
    records = [{"class": name, "n": -index} for index, name in enumerate(NAMES)]
    text = csv_text(records)
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["class"] for row in rows] == [name.encode("utf-8", "backslashreplace").decode() for name in NAMES]
    assert text.encode()
    headings, _ = csv.reader(io.StringIO(csv_text([dict.fromkeys(NAMES, 1)]), newline=""))
    assert len(headings) == len(NAMES)


@each_name
def test_markdown_shows_the_name(name):
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    tokens = parser.parse(f"| {markdown_text(name)} | second |\n|---|---|\n| **{markdown_text(name)}** | {2} |\n")
    cells = [token.children for token in tokens if token.type == "inline"]
    assert len(cells) == 4
    for cell, marks in ((cells[0], set()), (cells[2], {"strong_open", "strong_close"})):
        assert {token.type for token in cell} <= {"text", "text_special", *marks}
        shown = "".join(token.content for token in cell)
        assert shown == visible(name).replace("\n", " ").strip()


@each_name
def test_latex_has_no_raw_specials(name):
    text = latex_text(name)
    bare = re.sub(r"\\(textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar)\{\}", "", text)
    bare = re.sub(r"\\[&%$#_{}]|\{[\[\]*]\}", "", bare)
    assert not set(bare) & set("\\&%$#_{}~^<>|[]*\n")


class _Texts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: set[str] = set()

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)


@each_name
def test_html_shows_the_name(name):
    from golu_core.studies.reporting.tables import Table, TableCell, TableRow

    tables = [Table(name, (name,), (name,), [TableRow((name,), (TableCell(name),))], [name])]
    page = template("run.html.jinja").render(title=name, tables=tables, figures=[])
    page.encode()
    parser = _Texts()
    parser.feed(page)
    assert "script" not in parser.tags
    assert sum(text.strip() == visible(name).strip() for text in parser.texts) >= 6


@each_name
def test_yaml_and_json_give_back_the_name(name):
    assert json.loads(json.dumps(name)) == name
    line = f"tags: {yaml_value(['golu', name, {'name': name}])}"
    assert yaml.safe_load(line) == {"tags": ["golu", visible(name), {"name": visible(name)}]}


# ------------------------------------------------------------------------------------------------------------- figures


@pytest.mark.parametrize("kind", ["png", "svg"])
@pytest.mark.filterwarnings("ignore:Glyph:UserWarning", "ignore:constrained_layout:UserWarning")
def test_figures_draw_every_name(kind, tmp_path):
    figure = new_figure(20, 60)
    axes = figure.subplots(3, 1)
    for place, name in enumerate(NAMES):
        axes[0].plot([0, 1], [place, place], label=name)
        axes[1].fill_between([0, 1], [place, place], [place, place + 1], label=name)
        axes[1].errorbar([0, 1], [place, place], [1, 1], label=name)
        axes[2].stairs([place], [0, 1], label=name)
        axes[2].scatter([0], [place], label=name)
        axes[2].text(0, place, name)
    axes[0].set_yticks(range(len(NAMES)), NAMES)
    axes[1].set_yscale("log")
    axes[2].set(title="\n".join(NAMES[:3]), xlabel=NAMES[0], ylabel=NAMES[3])
    figure.suptitle(NAMES[0])
    legends = [each.legend() for each in axes]
    figure.savefig(tmp_path / f"figure.{kind}", dpi=20)
    assert all(label.get_parse_math() for label in axes[1].yaxis.get_majorticklabels())  # powers of ten
    for legend, times in zip(legends, (1, 2, 2), strict=True):
        shown = [text.get_text() for text in legend.get_texts()]
        assert sorted(shown) == sorted([visible(name) for name in NAMES] * times)


def test_a_line_without_a_label_stays_out_of_the_legend(tmp_path):
    figure = new_figure(2, 2)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1])
    axes.plot([0, 1], [1, 0], label="_nolegend_")
    axes.errorbar([0, 1], [0, 1], [1, 1])
    axes.plot([0, 1], [0, 2], label="shown")
    assert [text.get_text() for text in axes.legend().get_texts()] == ["shown"]
    save_png(figure, tmp_path / "figure.png")
    assert "golu" in Image.open(tmp_path / "figure.png").info["Software"]


# ---------------------------------------------------------------------------------------------------------- file names


@pytest.mark.parametrize("name", ["a" * 247, "a" * 251 + ".txt", "é" * 127])
def test_a_name_may_be_as_long_as_the_file_system_allows(name, tmp_path):
    """The hidden siblings that a write leaves for a moment have longer names than the file."""
    assert len(name.encode()) <= LONGEST_NAME
    write_json(tmp_path / name, 1)
    (tmp_path / name).unlink()
    with only_writer(tmp_path / name), new_folder(tmp_path / name) as partial:
        write_json(partial / "run.json", {"format": "golu-run/1"})
    discard(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_long_names_stay_apart_when_they_are_cut():
    first, second = (fitting_name("é" * 200 + letter, ".png") for letter in "ab")
    assert first != second
    assert max(len(f"{name}.png".encode()) for name in (first, second)) <= LONGEST_NAME
    assert fitting_name("short", ".png") == "short"


def test_files_can_be_named_after_anything(tmp_path):
    taken: list[str] = []
    for name in [*NAMES, "a/b", "a_b", "/etc/passwd", "é" * 400, "é" * 401, ""]:
        taken.append(file_name(f"curves-{name}", taken))
        (tmp_path / f"{taken[-1]}.png").write_bytes(b"")
    assert len(list(tmp_path.iterdir())) == len(taken)


# ------------------------------------------------------------------------------------------------------------- sources

ONLY_IN_SINKS = {
    "print": "say, complain or say_data of text_sinks",
    "Console": "text_sinks.console",
    "Figure": "figures.new_figure",
    "writer": "text_sinks.csv_text",
    "DictWriter": "text_sinks.csv_text",
}


def calls(source: str) -> list[str]:
    """Names of the functions that a source calls; of methods only those of modules."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Name):
                found.append(function.id)
            elif isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
                if function.attr in ("track", "Progress", "Live", "writer", "DictWriter", "Console", "Figure"):
                    found.append(function.attr)
                if function.value.id in ("stdout", "stderr", "pyplot", "plt"):
                    found.append("print")
    return found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("print(1)", "print"),
        ("rich.console.Console()", None),
        ("rich.Console()", "Console"),
        ("Figure(figsize=(1, 1))", "Figure"),
        ("csv.writer(file)", "writer"),
        ("plt.subplots()", "print"),
    ],
)
def test_the_search_finds_what_it_looks_for(source, found):
    assert [name for name in calls(source) if name in ONLY_IN_SINKS] == ([found] if found else [])


def test_text_leaves_the_program_through_the_sinks_alone():
    """What is printed, drawn or written as CSV elsewhere would miss what the sinks do."""
    found = [
        f"{path.relative_to(ROOT)} calls {name}: use {ONLY_IN_SINKS[name]}"
        for path in SOURCES
        if path.name != "text_sinks.py"
        for name in calls(path.read_text(encoding="utf-8"))
        if name in ONLY_IN_SINKS
    ]
    assert not found


def test_progress_bars_are_drawn_on_our_console():
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                named = {keyword.arg for keyword in node.keywords}
                if node.func.id in ("track", "Progress", "Live") and "console" not in named:
                    found.append(f"{path.relative_to(ROOT)}, line {node.lineno}")
    assert not found


def test_templates_escape_everything():
    """`| safe` and Markup are for matplotlib's own drawings alone."""
    for path in ROOT.glob("packages/*/src/**/*.jinja"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\|\s*safe|autoescape\s+false|=\{\{", text), path
    marked = [
        path.name for path in SOURCES if re.search(r"\bMarkup\((?!as_inline_svg|\"\" if figure)", path.read_text())
    ]
    assert marked == []


def test_the_page_is_of_these_names():
    page = (ROOT / "docs" / "names.md").read_text(encoding="utf-8")
    assert page == name_table.page(), f"run: {Path(sys.executable).name} tools/name_table.py > docs/names.md"
