"""Studies that would wait forever or mean something else, and files that only malice makes: one message each."""

from __future__ import annotations

import json

import pytest

from golu_core.studies import aggregate
from golu_core.studies.reporting.collect import collect
from golu_core.studies.reporting.summary import rows_of
from golu_core.studies.sweeping.study import planned_runs, study_from
from golu_core.training.messages.errors import RequestError
from runs_on_disk import change_result, write_run

EXPERIMENT = {"recipes": ["digits"], "activations": ["golu"], "seeds": [0]}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"experiment": [{**EXPERIMENT, "after": "digits"}]}, "wait for each other: digits-golu-seed0 after"),
        (
            {
                "experiment": [
                    {**EXPERIMENT, "after": "ddpm-digits"},
                    {**EXPERIMENT, "recipes": ["ddpm-digits"], "after": "babygpt-pydocs"},
                    {**EXPERIMENT, "recipes": ["babygpt-pydocs"], "after": "digits"},
                ]
            },
            "wait for each other",
        ),
        ({"experiment": [EXPERIMENT], "seeds": []}, "seeds is empty"),
        ({"experiment": [{**EXPERIMENT, "seeds": []}]}, "seeds is empty"),
        ({"experiment": [{**EXPERIMENT, "activations": []}]}, "activations is empty"),
        ({"experiment": [{**EXPERIMENT, "recipes": []}]}, "recipes is empty"),
        ({"experiment": [EXPERIMENT], "seeds": "012"}, "seeds must be a list, not '012'"),
        ({"experiment": [{**EXPERIMENT, "recipes": "digits"}]}, "recipes must be a list, not 'digits'"),
        ({"experiment": [{**EXPERIMENT, "seeds": ["0"]}]}, "expected int"),
        ({"experiment": [{**EXPERIMENT, "seeds": [True]}]}, "expected int"),
        ({"experiment": [{**EXPERIMENT, "seeds": [-1]}]}, "must not be negative"),
        ({"experiment": [{**EXPERIMENT, "processes": 0}]}, "processes must be at least 1"),
        ({"experiment": EXPERIMENT}, r"\[\[experiment\]\]"),
    ],
)
def test_a_study_that_cannot_be_meant_is_refused(values, message, tmp_path):
    with pytest.raises(RequestError, match=message):
        planned_runs(study_from({**values, "output_dir": str(tmp_path)}, "mine.toml"))


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("train_seconds", "1" + "0" * 400),
        ("steps", "1" + "0" * 400),
        ("seed", "NaN"),
        ("train_seconds", "NaN"),
        ("eval_seconds", "-1"),
        ("metrics", '{"top1": 1' + "0" * 400 + "}"),
        ("best", "[" * 20_000 + "]" * 20_000),
        ("other", "1" + "0" * 5000),
    ],
)
def test_one_hostile_result_is_named_and_stops_nothing_else(field, text, tmp_path, capsys):
    for seed in (0, 1):
        folder = write_run(tmp_path, "vision", "digits", "golu", seed, {"top1": 98.0})
    values = json.loads((folder / "result.json").read_text())
    for name in ("sha256", "files", field):
        values.pop(name, None)
    (folder / "result.json").write_text(json.dumps(values)[:-1] + f', "{field}": {text}}}')
    status = aggregate.main([str(tmp_path)])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    assert status in (0, 2)
    if field != "other":
        assert status == 2 and str(folder / "result.json") in said.err


def test_a_changed_result_is_named(tmp_path, capsys):
    folder = write_run(tmp_path, "vision", "digits", "golu", 0, {"top1": 98.0})
    path = folder / "result.json"
    path.write_text(path.read_text().replace("98.0", "99.9"))
    assert aggregate.main([str(tmp_path)]) == 2
    assert "does not have its own checksum" in capsys.readouterr().err


def test_a_report_is_written_over_nothing_else(tmp_path, capsys):
    write_run(tmp_path / "runs", "vision", "digits", "golu", 0, {"top1": 98.0})
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "tables.tex").write_text("mine")
    assert aggregate.main([str(tmp_path / "runs"), "--out", str(out)]) == 2
    assert "holds files that are not a report" in capsys.readouterr().err
    assert (out / "tables.tex").read_text() == "mine"
    for _ in range(2):  # our own report is written anew
        assert aggregate.main([str(tmp_path / "runs"), "--out", str(tmp_path / "report")]) == 0


# ------------------------------------------------------------------------------------------ one identity for one number


def test_published_numbers_stand_only_beside_the_recipes_own_data(tmp_path):
    own = write_run(tmp_path, "vision", "resnet18-imagenet", "relu", 0, {"top1": 50.0})
    (row,) = rows_of(collect([tmp_path]).runs)
    assert row.cells["relu"].published == (69.74, 0.07)
    for changes in (
        {"dataset": "photos"},
        {"data": {"train": 10, "test": 5, "fingerprint": "f", "as_published": False}},
    ):
        change_result(own, **changes)
        (row,) = rows_of(collect([tmp_path]).runs)
        assert row.cells["relu"].published is None
        assert row.dataset != "ImageNet-1k"


def test_runs_on_other_data_are_not_mixed(tmp_path, capsys):
    for seed, fingerprint in enumerate(("pixels:a", "pixels:b")):
        folder = write_run(tmp_path, "vision", "digits", "golu", seed, {"top1": 98.0})
        data = {**json.loads((folder / "result.json").read_text())["data"], "fingerprint": fingerprint}
        change_result(folder, data=data)
    assert aggregate.main([str(tmp_path)]) == 2
    assert "data (fingerprint)" in capsys.readouterr().err
    assert aggregate.main([str(tmp_path), "--allow-mixed"]) == 0


def test_runs_of_version_0_1_are_left_out(tmp_path, capsys):
    folder = write_run(tmp_path, "vision", "digits", "golu", 0, {"top1": 98.0})
    config = json.loads((folder / "config.json").read_text())
    del config["format"]
    (folder / "config.json").write_text(json.dumps(config))
    write_run(tmp_path, "vision", "digits", "golu", 1, {"top1": 98.0})
    assert aggregate.main([str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert "version 0.1 of golu wrote it" in printed.out + printed.err
