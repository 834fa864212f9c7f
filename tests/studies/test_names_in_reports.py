"""Runs whose activations, recipes and data sets have names that somebody made up, in every form of a report."""

from __future__ import annotations

import csv
import dataclasses
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from golu_core import cli
from golu_core.activation.names.specs import parse_spec
from golu_core.studies import aggregate, analyze, sweep
from golu_core.training.config.identity import config_sha256
from golu_core.training.messages.text_sinks import latex_text, markdown_text, visible
from hostile_names import HOSTILE_NAMES, assert_harmless, printed_by
from runs_on_disk import change_result, recipe, write_run

NAMES = list(HOSTILE_NAMES.values())
pytestmark = pytest.mark.filterwarnings("ignore:Glyph:UserWarning", "ignore:constrained_layout:UserWarning")


each_encoding = pytest.mark.parametrize("encoding", ["utf-8", "ascii"])


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Runs of each name as an activation, and as a recipe, a data set, a model and a processor."""
    root = tmp_path_factory.mktemp("runs")
    for number, name in enumerate(NAMES):
        for seed in range(2):
            place = root / "activations" / f"{number}-{seed}"
            _write(place, seed, 90.0 + number / 10 + seed, activation=name)
        for seed, activation in ((0, "golu"), (1, "golu"), (0, "relu"), (1, "relu")):
            place = root / "recipes" / f"{number}-{activation}-{seed}"
            environment = {"python": "3.12", "torch": name, "device": "cpu", "host_cpu": name}
            shown = {"recipe": name, "dataset": name, "model": name, "environment": environment}
            _write(place, seed, 90.0 + seed, activation=activation, **shown)
    return root


def _write(place: Path, seed: int, value: float, **changes: Any) -> None:
    """A run whose files another program changed."""
    folder = write_run(place, "vision", "digits", "golu", seed, {"top1": value}, curve=[50.0, value], place=place)
    written = json.loads((folder / "config.json").read_text())
    named = {name: changes[name] for name in ("activation", "recipe") if name in changes}
    (folder / "config.json").write_text(json.dumps({**written, **named}))
    config = dataclasses.replace(recipe("vision", "digits"), seed=seed, **named)
    change_result(folder, config_sha256=config_sha256(config), **changes)


class Texts(HTMLParser):
    """Texts and kinds of elements of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: set[str] = set()
        self.feed(page)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)


def one_line(text: str) -> str:
    return " ".join(text.split())


def column(path: Path, name: str) -> set[str]:
    with path.open(encoding="utf-8", newline="") as file:
        return {row[name] for row in csv.DictReader(file)}


@pytest.mark.parametrize(("kind", "encoding"), [("png", "ascii"), pytest.param("svg", "utf-8", marks=pytest.mark.slow)])
def test_a_report_has_every_name(runs, kind, encoding, tmp_path):
    out = tmp_path / "report"
    done = printed_by(aggregate.main, str(runs), "--out", str(out), "--figures", kind, cwd=tmp_path, encoding=encoding)
    assert_harmless(done.out, done.err)
    assert done.status == 0, done.err
    exact = {name.encode("utf-8", "backslashreplace").decode() for name in NAMES}
    assert column(out / "summary.csv", "activation") == exact | {"golu", "relu"}
    assert column(out / "runs.csv", "recipe") == exact | {"digits"}
    report = json.loads((out / "report.json").read_text())
    assert {run["activation"] for run in report["runs"]} == {*NAMES, "golu", "relu"}
    assert {run["recipe"] for run in report["runs"]} == {*NAMES, "digits"}
    page = Texts((out / "report.html").read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert {one_line(visible(name)) for name in NAMES} <= {one_line(text) for text in page.texts}
    markdown = (out / "tables.md").read_text(encoding="utf-8")
    latex = (out / "tables.tex").read_text(encoding="utf-8")
    assert all(f" {markdown_text(name)} |" in markdown for name in NAMES)
    assert all(latex_text(name) in latex for name in NAMES)
    assert_harmless(markdown, latex)
    figures = [path.name for path in (out / "figures").iterdir()]
    assert sum(name.startswith("curves-") for name in figures) == len(NAMES) + 1
    if kind == "svg":
        drawn = Texts((out / "figures" / "curves-digits.svg").read_text(encoding="utf-8"))
        lines = {one_line(line) for name in NAMES for line in visible(name).split("\n")}
        assert lines <= {one_line(text) for text in drawn.texts}


@each_encoding
def test_single_runs(runs, encoding, tmp_path):
    """Their pages, tables and curves."""
    for number, name in enumerate(NAMES):
        for place in (f"activations/{number}-0", f"recipes/{number}-golu-0"):
            out = ["--out", str(tmp_path / str(number) / place)] if encoding == "utf-8" and number % 4 == 0 else []
            done = printed_by(aggregate.main, "--run", str(runs / place), *out, cwd=tmp_path, encoding=encoding)
            assert_harmless(done.out, done.err)
            assert done.status == 0, done.err
            if out:
                page = Texts((Path(out[1]) / "run.html").read_text(encoding="utf-8"))
                assert one_line(visible(name)) in one_line(" ".join(page.texts))


@each_encoding
def test_what_golu_core_prints_by_itself(encoding, tmp_path):
    for words in (["activations"], [], ["--help"], *([name] for name in NAMES)):
        done = printed_by(cli.main, *words, cwd=tmp_path, encoding=encoding)
        assert_harmless(done.out, done.err)
        assert done.status == (2 if words and words[0] in NAMES else 0)


@pytest.mark.parametrize("encoding", ["ascii"])
def test_analyses_of_activations_in_files_of_any_name(encoding, tmp_path):
    """Those that cannot be an activation's name, such as a terminal command, are refused one by one."""
    words = []
    for name in NAMES:
        if name == "[%b]":
            continue
        (tmp_path / f"{name}.py").write_text("import torch\n\nclass Mine(torch.nn.ReLU):\n    pass\n")
        word = f"./{name}.py:Mine"
        try:
            parse_spec(word)
            words.append(word)
        except ValueError:
            done = printed_by(analyze.main, "gates", word, "--out", "out", cwd=tmp_path, encoding=encoding)
            assert_harmless(done.out, done.err)
            assert done.status == 2 and not (tmp_path / "out").exists()
    assert len(words) > len(NAMES) / 2
    done = printed_by(analyze.main, "gates", *words, "--out", "out", cwd=tmp_path, encoding=encoding)
    assert_harmless(done.out, done.err)
    assert done.status == 0, done.err


@each_encoding
def test_studies_of_these_names(encoding, tmp_path):
    """Refused with the name where nothing has it; in a folder of that name they have a state."""
    for number, name in enumerate(NAMES[::2]):
        folder = tmp_path / name
        folder.mkdir()
        text = name.encode("utf-8", "backslashreplace").decode()
        wrong = {"recipes": [text]} if number % 2 else {"activations": [text]}
        (folder / "wrong.toml").write_text(study(str(tmp_path / str(number)), **wrong), encoding="utf-8")
        done = printed_by(sweep.main, str(folder / "wrong.toml"), "--status", cwd=tmp_path, encoding=encoding)
        assert_harmless(done.out, done.err)
        assert done.status == 2
        if text == name:
            (folder / "right.toml").write_text(study(str(folder)), encoding="utf-8")
            done = printed_by(sweep.main, str(folder / "right.toml"), "--status", cwd=tmp_path, encoding=encoding)
            assert_harmless(done.out, done.err)
            assert done.status in (0, 1, 2)


def study(output_dir: str, **changes: list[str]) -> str:
    experiment = {"recipes": ["digits"], "activations": ["golu"], "seeds": [0], **changes}
    lines = [f"{name} = {json.dumps(value)}" for name, value in experiment.items()]
    return f"output_dir = {json.dumps(output_dir)}\n[[experiment]]\n" + "\n".join(lines)
