"""tools/aggregate.py run as a person runs it, on finished runs with known numbers."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import random
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from benchmark_aggregate import seconds_and_mib, write_results
from golu_core.studies import aggregate
from golu_core.studies.power import comparison_count
from golu_core.studies.reporting.collect import DATA, TOKENIZER, collect
from golu_core.studies.reporting.report import Report
from golu_core.studies.reporting.summary import rows_of
from golu_core.studies.sweeping.study import planned_runs, study_from
from golu_core.training.runs.failures import Failure, write_failure
from golu_core.training.runs.run_files import write_config
from golu_core.training.storage.locks import FolderLock
from published_tables import COLUMNS, ROWS
from runs_on_disk import ENVIRONMENT, change_result, published_rows, recipe, write_digits, write_published, write_run

DIGITS = {"relu": [97.0, 98.0, 99.0], "golu": [98.0, 99.0, 99.4]}


def run(*arguments: object) -> int:
    """Calls the command line in this process."""
    return aggregate.main([str(argument) for argument in arguments])


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    write_digits(tmp_path / "runs", DIGITS, curve=[50.0, 98.0])
    return tmp_path / "runs"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    write_published(folder)
    return folder


# ------------------------------------------------------------------------------------------------------------- tables


def test_means_errors_and_the_best(digits, capsys):
    assert run(digits) == 0
    shown = capsys.readouterr().out
    assert "98.00 ± 0.58" in shown  # standard deviation 1, over the root of 3
    assert "98.80 ± 0.42" in shown
    assert "1.00 / 1.00" in shown
    assert "6 runs are in the tables, 0 were left out" in shown


def test_all_files_are_written_and_agree(digits, tmp_path):
    assert run(digits, "--out", tmp_path / "report") == 0
    out = tmp_path / "report"
    assert {path.name for path in out.iterdir()} == {
        "report.html", "tables.md", "tables.tex", "summary.csv", "runs.csv", "report.json", "figures",
    }  # fmt: skip
    records = {r["activation"]: r for r in csv.DictReader((out / "summary.csv").open())}
    values = {r["activation"]: r for r in json.loads((out / "report.json").read_text())["summary"]}
    for activation, listed in DIGITS.items():
        mean = sum(listed) / 3
        std = math.sqrt(sum((value - mean) ** 2 for value in listed) / 2)
        assert float(records[activation]["mean"]) == pytest.approx(mean)
        assert float(records[activation]["std"]) == pytest.approx(std)
        assert values[activation]["standard_error"] == pytest.approx(std / math.sqrt(3))
        assert values[activation]["best"] == (activation == "golu")
    assert len(list(csv.DictReader((out / "runs.csv").open()))) == 6
    assert "| digits |" in (out / "tables.md").read_text()
    assert "**98.80 ± 0.42**" in (out / "tables.md").read_text()
    assert r"\textbf{98.80 $\pm$ 0.42}" in (out / "tables.tex").read_text()
    assert r"\toprule" in (out / "tables.tex").read_text()
    assert all(path.stat().st_size > 5000 for path in (out / "figures").iterdir())


def test_published_values_come_out_as_published(published):
    report = Report(collect([published]), "golu")
    assert {(row.recipe, row.metric_name) for row in report.rows} == set(ROWS)
    for row in report.rows:
        for activation, printed in zip(COLUMNS, ROWS[row.recipe, row.metric_name].split(), strict=True):
            cell, (mean, spread) = row.cells[activation], map(float, printed.split("±"))
            assert cell.published == (mean, spread)  # what the recipe says is what the paper prints
            assert f"{cell.mean:.{row.metric.decimals}f}" == printed.split("±")[0]
            assert cell.standard_error == pytest.approx(spread)
            assert cell.difference == pytest.approx(0, abs=1e-9)


PUBLISHED = list(published_rows())


@pytest.fixture(scope="module")
def of_the_paper(published):
    return Report(collect([published]), "golu").rows


@pytest.mark.parametrize(("task", "recipe"), PUBLISHED, ids=[recipe.recipe for _, recipe in PUBLISHED])
def test_published_values_stand_next_to_the_recipes_settings_alone(task, recipe, of_the_paper):
    """Flip each field of the recipe's identity: the published value is gone. DeepLabV3 at 0.02 had that of 0.01."""
    (row, *_) = [row for row in of_the_paper if row.recipe == recipe.recipe]
    settings = dict(row.settings)
    assert all(cell.published for cell in row.cells.values())
    fields = [name for name in settings if name != DATA and not name.endswith(TOKENIZER)]
    assert {"optim.lr", "batch_size"} <= set(fields)
    for field in fields:
        flipped = [dataclasses.replace(row.runs[0], settings={**settings, field: "another value"})]
        cells = [cell for found in rows_of(flipped) for cell in found.cells.values()]
        assert cells and not any(cell.published for cell in cells), field
    (unknown, *_) = rows_of([dataclasses.replace(run, settings=None) for run in row.runs])
    assert not any(cell.published for cell in unknown.cells.values())


# (recipe, other settings, metric, {activation: mean}): read from the paper's pictures, which print no ±
PICTURED = [
    ("deeplabv3-resnet50-coco", {}, "miou", {"elu": 60.70, "leaky_relu": 65.55}),
    ("deeplabv3-resnet50-coco", {"optim.lr": 0.02}, "miou", {"relu": 64.99, "golu": 64.98, "elu": 59.31}),
    ("maskrcnn-resnet50-fpn-coco", {}, "mask_map", {"elu": 32.38, "leaky_relu": 34.26}),
    ("maskrcnn-resnet50-fpn-coco", {"optim.lr": 0.02}, "box_map", {"gelu": 39.00, "golu": 38.96}),
    ("maskrcnn-resnet50-fpn-coco", {"optim.lr": 0.02}, "mask_map", {"gelu": 34.73, "golu": 34.54}),
    ("ddpm-celeba", {}, "loss", {"elu": 0.0193941}),
    ("ddpm-celeba", {"optim.lr": 3e-5}, "loss", {"swish": 0.0196364, "golu": 0.0196419}),
    ("babygpt-tinystories", {}, "token_accuracy", {"elu": 59.86}),
    ("resnet50-imagenet", {}, "top1", {"leaky_relu": 75.67}),
    ("vit-b32-imagenet", {"optim.lr": 0.001}, "top1", {"leaky_relu": 75.15, "relu": 74.93, "golu": 74.63}),
    ("vit-b16-imagenet", {"optim.lr": 0.001}, "top1", {"relu": 79.59, "gelu": 78.87, "golu": 78.87}),
]


@pytest.mark.parametrize(("recipe", "changed", "metric", "means"), PICTURED)
def test_results_at_other_rates_stand_next_to_runs_at_these(recipe, changed, metric, means, of_the_paper):
    (row, *_) = [row for row in of_the_paper if row.recipe == recipe]
    for activation, mean in means.items():
        result = dataclasses.replace(row.runs[0].result, activation=activation)
        run = dataclasses.replace(row.runs[0], result=result, settings={**dict(row.settings), **changed})
        (found,) = [found for found in rows_of([run]) if found.metric_name == metric]
        assert found.cells[activation].published == (mean, None)
    changed = {**changed, "optim.lr": 0.123}
    run = dataclasses.replace(row.runs[0], settings={**dict(row.settings), **changed})
    assert not any(cell.published for found in rows_of([run]) for cell in found.cells.values())


@pytest.mark.parametrize("backbone", [None, "runs/vision/resnet50-imagenet/relu/seed0", "IMAGENET1K_V1"])
def test_a_detectors_published_values_need_the_backbone_of_its_activation_and_seed(backbone, of_the_paper):
    (row,) = [row for row in of_the_paper if row.recipe == "fasterrcnn-resnet50-fpn-coco"]
    assert row.settings["backbone"].endswith("/resnet50-imagenet/{activation}/seed{seed}")
    runs = [dataclasses.replace(run, settings={**dict(row.settings), "backbone": backbone}) for run in row.runs]
    assert not any(cell.published for found in rows_of(runs) for cell in found.cells.values())


def test_ranks_of_the_published_tables(published):
    over = Report(collect([published]), "golu").over
    golu = {row.recipe: rank for row, rank in zip(over.rows, over.ranks[:, -1].tolist(), strict=True)}
    assert over.activations == ("relu", "gelu", "swish", "mish", "golu")
    assert golu.pop("efficientnet-b0-imagenet") == 2  # GELU is better there, as the paper prints
    assert set(golu.values()) == {1}
    assert over.wins["golu"] == 16
    assert over.wins["gelu"] == 1


def test_families_of_the_published_tables(published):
    """Sizes of one architecture on one data set are a family, and nothing else is."""
    over = Report(collect([published]), "golu").over
    families = {family: [row.recipe for row in over.rows if row.family == family] for family in over.families}
    shared = {family: len(members) for family, members in families.items() if len(members) > 1}
    assert shared == {"ResNet on ImageNet-1k": 3, "ViT on ImageNet-1k": 2}


def test_power_counts_the_comparisons_that_the_report_makes(published):
    """Of the plan alone and with results there; of secondary metrics as well."""
    report = Report(collect([published]), "golu")
    made = [(row.recipe, row.metric_name, pair.other) for row, pairs in report.paired for pair in pairs]
    recipes = sorted({row.recipe for row in report.rows})
    names = ["relu", "gelu", "swish", "mish", "golu"]
    plan = study_from({"activations": names, "experiment": [{"recipes": recipes}]}, "a test")
    assert comparison_count(planned_runs(plan), [], "golu") == len(made) > 4 * len(recipes)
    assert comparison_count(planned_runs(plan), report.rows, "golu") == len(made)
    varied = [{"recipes": ["digits"], "flags": {"epochs": [2, 3]}}]
    runs = planned_runs(study_from({"activations": names, "experiment": varied}, "a test"))
    assert comparison_count(runs, [], "golu") == 8


def test_recipes_of_one_network_on_one_data_set_are_one_family_without_a_published_row(tmp_path):
    for known in ("digits", "mlp-digits"):
        for name in ("relu", "golu"):
            folder = write_run(tmp_path, "vision", known, name, 0, {"top1": 90.0})
            change_result(folder, recipe=f"my-{known}")
    rows = Report(collect([tmp_path]), "golu").rows
    assert {row.recipe for row in rows} == {"my-digits", "my-mlp-digits"}
    assert {row.family for row in rows} == {"a model on digits"}


def test_the_published_tables_are_significant_over_recipes(published):
    report = Report(collect([published]), "golu")
    assert report.over.friedman.p == pytest.approx(1e-4)  # the smallest that 9,999 permutations give
    assert "GoLU has the best mean rank" in report.findings()[0]


def test_a_metric_beneath_the_primary_one(published):
    rows = [row for row in Report(collect([published]), "golu").rows if row.recipe == "maskrcnn-resnet50-fpn-coco"]
    assert [(row.metric_name, row.is_primary) for row in rows] == [("box_map", True), ("mask_map", False)]
    assert rows[1].best == {"golu"}


def test_lower_is_better_where_the_metric_says_so(tmp_path):
    for activation, value in (("gelu", 5.0), ("golu", 4.0)):
        write_run(tmp_path, "lm", "babygpt-pydocs", activation, 0, {"perplexity": value})
    (row,) = Report(collect([tmp_path]), "golu").rows
    assert row.best == {"golu"}


def test_one_seed_has_no_spread(tmp_path, capsys):
    write_digits(tmp_path, {"relu": [97.0], "golu": [98.0]})
    assert run(tmp_path) == 0
    shown = capsys.readouterr().out
    assert "±" not in shown.split("Mean ±")[0]
    assert "std" not in shown.split("Mean ±")[0]


def test_what_is_equal_is_best_together(tmp_path):
    write_digits(tmp_path, {"relu": [97.0], "golu": [97.0], "mish": [96.0]})
    (row,) = Report(collect([tmp_path]), "golu").rows
    assert row.best == {"relu", "golu"}


def test_relative_time(tmp_path):
    write_digits(tmp_path, {"relu": [97.0, 98.0]}, step_seconds=0.1)
    write_digits(tmp_path, {"golu": [97.0, 98.0]}, step_seconds=0.125)
    table = Report(collect([tmp_path]), "golu").result_tables[-1]
    assert [cell.text for cell in table.rows[0].cells] == ["1.00 / 1.00", "1.25 / 1.00"]


def test_times_of_different_machines_are_not_compared(tmp_path):
    write_digits(tmp_path, {"relu": [97.0]})
    write_digits(tmp_path, {"golu": [97.0]}, environment={**ENVIRONMENT, "device": "another"})
    report = Report(collect([tmp_path]), "golu")
    assert not any("Relative time" in table.title for table in report.tables())
    assert "the runs were on different hardware" in report.cards[0].departures


def test_a_recipe_of_ones_own(tmp_path, capsys):
    folder = write_run(tmp_path, "vision", "digits", "golu", 0, {"top1": 90.0})
    change_result(folder, task="audio", recipe="mine", more=1)
    assert run(tmp_path) == 0
    assert "mine" in capsys.readouterr().out


# -------------------------------------------------------------------------------------------------- what is left out


def test_order_of_folders_changes_nothing(digits, tmp_path):
    folders = sorted(path.parent for path in digits.rglob("result.json"))
    random.Random(1).shuffle(folders)
    assert run(digits, "--out", tmp_path / "one") == 0
    assert run(*folders, "--out", tmp_path / "two") == 0
    for path in (tmp_path / "one").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes(), path


def test_a_run_is_what_its_result_says_not_where_it_lies(tmp_path):
    write_run(tmp_path, "vision", "digits", "golu", 0, {"top1": 98.0}, place=tmp_path / "lm" / "x" / "relu" / "seed7")
    (found,) = collect([tmp_path]).runs
    assert (found.result.task, found.result.activation, found.result.seed) == ("vision", "golu", 0)


def test_names_that_contain_each_other_stay_apart(tmp_path):
    for activation in ("relu", "leaky_relu", "elu", "gelu"):
        write_run(tmp_path, "vision", "digits", activation, 0, {"top1": 90.0 + len(activation)})
    write_run(tmp_path, "vision", "resnet50-imagenet", "relu", 0, {"top1": 75.0})
    write_run(tmp_path, "vision", "wideresnet50-2-imagenet", "relu", 0, {"top1": 76.0})
    rows = {row.recipe: row for row in Report(collect([tmp_path]), "golu").rows}
    assert {name: cell.mean for name, cell in rows["digits"].cells.items()} == {
        "leaky_relu": 100.0, "relu": 94.0, "elu": 93.0, "gelu": 94.0,
    }  # fmt: skip
    assert rows["resnet50-imagenet"].cells["relu"].mean == 75.0
    assert rows["wideresnet50-2-imagenet"].cells["relu"].mean == 76.0


def test_duplicates_count_once_and_are_named(digits, capsys):
    shutil.copytree(digits / "vision", digits / "copy")
    assert run(digits, digits) == 0
    shown = capsys.readouterr().out
    assert "6 runs are in the tables, 6 were left out" in shown
    assert "duplicate of" in shown
    assert "with the same metrics" in shown


def test_a_duplicate_with_other_metrics_is_not_chosen_by_them(tmp_path):
    kept = set()
    for value in range(20):  # whichever is kept does not follow from which is better
        top = tmp_path / str(value)
        for number, metric in enumerate((50.0 + value, 60.0 + value)):
            write_run(top, "vision", "digits", "golu", 0, {"top1": metric}, place=top / str(number))
        collection = collect([top])
        assert len(collection.runs) == 1
        assert "with other metrics" in collection.left_out[0].reason
        kept.add(collection.runs[0].result.primary_metric.value >= 60.0 + value)
    assert kept == {True, False}


def test_unfinished_runs_are_named(digits, capsys):
    (digits / "vision" / "digits" / "golu" / "seed1" / "result.json").unlink()
    assert run(digits) == 0
    shown = capsys.readouterr().out
    assert "5 runs are in the tables, 1 was left out" in shown
    assert "golu/seed1: unfinished" in shown


def fail(folder: Path, reason: str = "the loss of step 7 is nan at learning rate 0.1") -> None:
    """Makes of a finished run one that its own numbers ended."""
    (folder / "result.json").unlink()
    write_failure(folder, Failure(7, reason, ""))


def test_a_run_that_diverged_counts_as_a_failed_run(tmp_path, capsys):
    """Of GoLU's eight seeds the two worst diverge: they stay in the table, the ranks, the verdict, and the answer."""
    values = {"relu": [90.0 + seed / 10 for seed in range(8)], "golu": [91.0 + seed / 10 for seed in range(8)]}
    write_digits(tmp_path / "runs", values, curve=[50.0, 98.0])
    for seed in (0, 1):
        fail(tmp_path / "runs" / "vision" / "digits" / "golu" / f"seed{seed}")
    assert run(tmp_path / "runs", "--out", tmp_path / "report") == 0
    shown = capsys.readouterr().out
    assert "16 runs are in the tables, 0 were left out" in shown
    assert "91.45 ± 0.08 (2 failed)" in shown
    assert "2 and 0 of 8 seeds failed" in shown and "1.00 / 1.00" in shown
    assert "Failed runs, each of which counts as a loss: ReLU 0 of 8, GoLU 2 of 8." in shown
    values = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [(r["activation"], r["seed"]) for r in values["runs"] if r["failed"]] == [("golu", 0), ("golu", 1)]
    assert values["over_recipes"]["wins"] == {"relu": 1, "golu": 0}


def test_a_diverged_run_of_another_config_is_refused_or_a_row_of_its_own(digits, capsys):
    write_run(digits / "other", "vision", "digits", "golu", 0, {"top1": 90.0}, epochs=7)
    fail(digits / "other" / "vision" / "digits" / "golu" / "seed0")
    assert run(digits) == 2
    assert "epochs: " in (refusal := capsys.readouterr().err) and "fingerprint" not in refusal
    assert run(digits, "--allow-mixed") == 0
    assert "GoLU 1 of 4" in capsys.readouterr().out


def test_a_diverged_run_that_nothing_says_how_to_count_is_left_out(digits, capsys):
    write_run(digits, "lm", "babygpt-pydocs", "golu", 0, {"perplexity": 3.0})
    fail(digits / "lm" / "babygpt-pydocs" / "golu" / "seed0")
    shutil.copytree(digits / "vision" / "digits" / "golu" / "seed1", digits / "again")
    fail(digits / "again")
    assert run(digits) == 0
    shown = capsys.readouterr().out
    assert "seed0: failed, and its recipe has no finished run" in shown and "again: failed, and is a duplicate" in shown
    assert "6 runs are in the tables, 2 were left out" in shown


def test_a_run_that_is_being_trained_is_named_as_such(digits, capsys):
    folder = digits / "vision" / "digits" / "golu" / "seed1"
    (folder / "result.json").unlink()
    lock = FolderLock(folder)
    lock.acquire(0)
    try:
        assert run(digits) == 0
    finally:
        lock.release()
    assert "golu/seed1: unfinished: it is being trained" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["[]", "{", '{"recipe": "digits", "activation": "golu", "seed": "0"}'])
def test_a_diverged_run_with_a_malformed_config_is_refused(digits, capsys, content):
    folder = digits / "vision" / "digits" / "golu" / "seed1"
    fail(folder)
    (folder / "config.json").write_text(content)
    assert run(digits) == 2
    assert "config.json" in capsys.readouterr().err


def test_a_result_with_anothers_config_is_left_out(digits, capsys):
    top = digits / "vision" / "digits" / "golu"
    shutil.copy(top / "seed0" / "config.json", top / "seed1" / "config.json")
    assert run(digits) == 0
    assert "its config.json is not the config that its result.json names" in capsys.readouterr().out


def test_a_missing_config_is_found_by_its_checksum(digits):
    for path in digits.rglob("config.json"):
        path.unlink()
    assert all(found.settings is not None for found in collect([digits]).runs)
    write_run(digits, "vision", "digits", "mish", 0, {"top1": 97.0}, epochs=3)
    (digits / "vision" / "digits" / "mish" / "seed0" / "config.json").unlink()
    (left,) = collect([digits]).left_out
    assert left.reason == "it has no config.json, and its checksum fits none of its siblings' configs"
    assert len(collect([digits]).runs) == 6


def test_configs_that_nobody_knows(tmp_path):
    write_digits(tmp_path, DIGITS, epochs=3)
    for path in tmp_path.rglob("config.json"):
        path.unlink()
    report = Report(collect([tmp_path]), "golu")
    assert report.rows[0].cells["golu"].n == 3
    assert report.cards[0].departures == ["the configs of these runs are not known"]


def test_runs_below_folders_of_any_name(tmp_path):
    write_digits(tmp_path / "logs" / "samples" / "checkpoints", DIGITS)
    assert len(collect([tmp_path]).runs) == 6


def test_failed_runs_are_shown_and_not_averaged(tmp_path, capsys):
    write_digits(tmp_path, {"relu": [97.0, math.nan, 99.0], "golu": [math.nan]})
    assert run(tmp_path, "--out", tmp_path / "out") == 0
    shown = capsys.readouterr().out
    assert "98.00 ± 1.00 (1 failed)" in shown
    assert "1 failed" in shown
    record = json.loads((tmp_path / "out" / "report.json").read_text())["summary"][1]
    assert (record["activation"], record["mean"], record["failed"]) == ("golu", None, 1)


# ---------------------------------------------------------------------------------------------------------- bad input


def refused(capsys, tmp_path, *arguments: object) -> str:
    """What is said on standard error; nothing may be written."""
    assert run(*arguments, "--out", tmp_path / "out") == 2
    assert not (tmp_path / "out").exists()
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    return said.err


def test_no_results(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert "no result.json below" in refused(capsys, tmp_path, tmp_path / "empty")
    assert "does not exist" in refused(capsys, tmp_path, tmp_path / "missing")


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"schema": "golu-result/1"}', "\x00\x01", '{"schema": "golu-result/1", "task": 3'], ids=repr
)
def test_malformed_results_are_named(digits, tmp_path, capsys, content):
    path = digits / "vision" / "digits" / "golu" / "seed1" / "result.json"
    path.write_text(content)
    assert str(path) in refused(capsys, tmp_path, digits)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", "zero"),
        ("metrics", [1.0]),
        ("metrics", {"top1": "high"}),
        ("primary_metric", {"name": "top1", "value": None, "higher_is_better": True}),
        ("primary_metric", {"name": "top1", "value": 1.0, "higher_is_better": "yes"}),
        ("primary_metric", 5),
        ("train_seconds", None),
        ("recipe", None),
        ("environment", "mine"),
    ],
)
def test_fields_of_another_shape_are_named(digits, tmp_path, capsys, field, value):
    path = digits / "vision" / "digits" / "golu" / "seed1" / "result.json"
    change_result(path.parent, **{field: value})
    said = refused(capsys, tmp_path, digits)
    assert str(path) in said
    assert field in said


def test_mixed_schemas(digits, tmp_path, capsys):
    path = digits / "vision" / "digits" / "golu" / "seed1" / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": "golu-result/2"}))
    said = refused(capsys, tmp_path, digits)
    assert "mixed schemas" in said
    assert "golu-result/2" in said


def test_differing_configs_are_refused_with_their_fields(digits, tmp_path, capsys):
    write_run(digits, "vision", "digits", "golu", 7, {"top1": 80.0}, epochs=3)
    said = refused(capsys, tmp_path, digits)
    assert "vision digits: epochs: 3 (1 run, such as " in said
    assert "golu/seed7), 8 (6 runs, such as " in said
    assert "--allow-mixed" in said


def test_scores_by_different_tokenizers_are_refused(digits, tmp_path, capsys):
    for seed, tokenizer in ((7, "13a"), (8, "zh"), (9, "13a")):
        signature = f"nrefs:1|case:mixed|eff:no|tok:{tokenizer}|smooth:exp|version:2.{seed}.0"
        run = write_run(digits, "translation", "transformer-numbers", "golu", seed, {"bleu": 30.0})
        change_result(run, signatures={"bleu": signature, "chrf": "nrefs:1|case:mixed"})
    said = refused(capsys, tmp_path, digits)
    assert "transformer-numbers: bleu (tokenizer): 13a (2 runs, such as " in said and "zh (1 run, such as " in said


def test_allowed_mixed_configs_are_rows_of_their_own(digits, capsys):
    write_run(digits, "vision", "digits", "golu", 7, {"top1": 80.0}, epochs=3)
    assert run(digits, "--allow-mixed") == 0
    shown = capsys.readouterr().out
    assert "digits (epochs=8)" in shown
    assert "digits (epochs=3)†" in shown
    assert "98.80 ± 0.42" in shown  # not mixed with the 80
    rows = Report(collect([digits]), "golu").over.rows
    assert [row.variant for row in rows] == ["epochs=8"]


def test_differing_metrics_are_refused(digits, tmp_path, capsys):
    write_run(digits, "vision", "digits", "golu", 7, {"loss": 0.5})
    assert "different primary metrics" in refused(capsys, tmp_path, digits)


@pytest.mark.parametrize(
    "arguments", [[], ["--reference", "nothing", "."], ["--out", __file__, "."], ["--run", "nowhere"]]
)
def test_wrong_requests(arguments, capsys):
    assert run(*arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------------- report


class Page(HTMLParser):
    """What a page refers to, and whether its elements are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.ids: set[str] = set()
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.references += [values[name] for name in ("href", "src", "xlink:href") if values.get(name)]
        self.ids |= {values["id"]} if "id" in values else set()
        if tag not in ("meta", "link", "br", "use", "path"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in ("meta", "link", "br", "use", "path"):
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in ("path", "use"):
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(published, tmp_path_factory) -> str:
    out = tmp_path_factory.mktemp("out")
    assert run(published, "--out", out) == 0
    return (out / "report.html").read_text()


def test_the_page_needs_no_network(page):
    parsed = Page(page)
    assert parsed.open == []
    assert all(reference.startswith("#") for reference in parsed.references)
    assert {reference[1:] for reference in parsed.references} <= parsed.ids
    assert "url(http" not in page
    assert "@import" not in page
    assert not re.search(r"<script", page)


def test_the_page_has_every_part(page):
    for part in ("Results", "What may be claimed", "Reproducibility", "Methods", "Critical-difference diagram"):
        assert part in page
    assert page.count("<figure") == 17 + 4  # a curve a recipe, effects, ranks, critical differences, relative times
    assert "76.63 ± 0.03" in page
    assert "As the recipe says" in page


def test_names_are_escaped(tmp_path):
    folder = write_run(tmp_path, "vision", "digits", "golu", 0, {"top1": 90.0}, curve=[1.0, 90.0])
    (folder / "config.json").unlink()
    name = "<script>alert(1)</script> & $x_1$ | mine"
    change_result(folder, task="own", recipe=name)
    assert run(tmp_path, "--out", tmp_path / "out") == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script" not in page
    assert Page(page).open == []
    assert r"\| mine" in (tmp_path / "out" / "tables.md").read_text()
    assert r"\& \$x\_1\$" in (tmp_path / "out" / "tables.tex").read_text()


def test_the_card_says_how_far_from_the_protocol(tmp_path):
    write_digits(tmp_path, {"relu": [97.0, 98.0, 99.0], "golu": [98.0]}, epochs=5)
    (card,) = Report(collect([tmp_path]), "golu").cards
    assert card.departures == ["epochs is 5, the recipe has 8", "fewer seeds than the paper's 3: GoLU 1"]
    assert [setting.name for setting in card.settings if setting.changed] == ["epochs"]
    assert dict(card.facts)["hardware"] == ["1 x a processor, 2 cores"]


def test_data_of_other_sizes_are_a_departure(tmp_path):
    for seed, documents in enumerate((100, 100, None)):
        folder = write_run(tmp_path, "lm", "babygpt-tinystories", "golu", seed, {"perplexity": 4.0})
        sizes = {"tokens": 5} if documents is None else {"tokens": 5, "documents": documents}
        data = {"train": sizes, "test": {"documents": 7}, "published": {"train": 2000, "test": 7}}
        change_result(folder, data=data)
    (card,) = Report(collect([tmp_path]), "golu").cards
    assert card.departures == [
        "train data: 100, the paper has 2,000",
        "train data: not known, the paper has 2,000",
    ]


@pytest.mark.parametrize("kind", ["pdf", "svg"])
def test_figures_of_other_kinds(digits, tmp_path, kind):
    assert run(digits, "--out", tmp_path / "out", "--figures", kind) == 0
    assert {path.suffix for path in (tmp_path / "out" / "figures").iterdir()} == {f".{kind}"}


def test_a_full_disk_is_said(digits, tmp_path, capsys, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("golu_core.training.storage.ownership.os.fsync", full)
    assert run(digits, "--out", tmp_path / "out") == 1
    assert f"{tmp_path / 'out'} could not be written: No space left on device" in capsys.readouterr().err


# --------------------------------------------------------------------------------------------------------- a single run


def test_a_single_run(digits, tmp_path, capsys):
    folder = digits / "vision" / "digits" / "golu" / "seed0"
    assert run("--run", folder, "--out", tmp_path / "one") == 0
    shown = capsys.readouterr().out
    assert "digits, GoLU, seed 0" in shown
    assert "50" in shown
    assert {path.name for path in (tmp_path / "one").iterdir()} == {
        "run.html",
        "run.md",
        "run.csv",
        "curves.png",
        "report.json",
    }
    assert Page((tmp_path / "one" / "run.html").read_text()).open == []


def test_an_unfinished_run_with_a_torn_line(digits, capsys):
    folder = digits / "vision" / "digits" / "golu" / "seed0"
    (folder / "result.json").unlink()
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 30, "spl')
    assert run("--run", folder) == 0
    assert "not finished" in capsys.readouterr().out
    (folder / "metrics.jsonl").write_text('{"step"\n{"step": 1, "split": "test", "loss": 1.0}\n')
    assert run("--run", folder) == 2
    assert "line 1 is malformed" in capsys.readouterr().err


@pytest.mark.slow
def test_ten_thousand_results(tmp_path):
    """The benchmark promises 5 s on an idle machine; this one may be busy."""
    assert write_results(tmp_path, 10_000) >= 10_000
    seconds, mib = seconds_and_mib([sys.executable, "-m", "golu_core", "aggregate", str(tmp_path)])
    assert mib < 500
    assert seconds < 20


def test_the_script_runs_by_itself(digits):
    import subprocess

    script = Path(__file__).resolve().parents[2] / "tools" / "aggregate.py"
    done = subprocess.run([sys.executable, script, digits], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "98.80 ± 0.42" in done.stdout


# ------------------------------------------------------------------------------------------------------ planned runs

STUDY = """
activations = ["relu", "golu"]
seeds = [0, 1, 2, 3]
output_dir = "runs"

[[experiment]]
recipes = ["digits"]
"""


def test_planned_runs_without_a_result_are_counted_and_named(digits, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.toml").write_text(STUDY)
    (tmp_path / "runs/vision/digits/relu/seed3").mkdir()
    begun = recipe("vision", "digits")
    write_config(tmp_path / "runs/vision/digits/relu/seed3", dataclasses.replace(begun, activation="relu", seed=3))
    (tmp_path / "runs/vision/digits/relu/seed3/metrics.jsonl").write_text("")
    assert run("--study", "study.toml", "--out", "report") == 0
    shown = capsys.readouterr().out
    assert "2 of 8 planned runs have no result, which may change every claim: ReLU 1 of 4, GoLU 1 of 4." in shown
    assert "runs/vision/digits/golu/seed3: planned by the study, and not begun" in shown
    assert "runs/vision/digits/relu/seed3: unfinished: it has no result.json" in shown
    report = json.loads((tmp_path / "report/report.json").read_text())
    assert len(report["left_out"]) == 2 and report["planned"][0].startswith("2 of 8 planned")


def test_planned_runs_are_known_wherever_they_lie(digits, tmp_path, monkeypatch, capsys):
    """By what their results say; a run of the plan's folder with other settings is none of the plan."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.toml").write_text(STUDY.replace("2, 3]", "2]"))
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    assert run("--study", "study.toml", "elsewhere") == 0
    assert "All 6 planned runs have ended." in capsys.readouterr().out
    (tmp_path / "study.toml").write_text(STUDY + "flags = {epochs = 3}\n")
    assert run("--study", "study.toml", "elsewhere") == 0
    assert "8 of 8 planned runs have no result" in capsys.readouterr().out


def test_a_failed_run_is_not_missing(digits, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.toml").write_text(STUDY.replace("2, 3]", "2]"))
    folder = tmp_path / "runs/vision/digits/golu/seed2"
    (folder / "result.json").unlink()
    write_failure(folder, Failure(7, "the loss is nan", ""))
    assert run("--study", "study.toml") == 0
    shown = capsys.readouterr().out
    assert "All 6 planned runs have ended." in shown and "GoLU 1 of 3" in shown


def test_a_study_whose_recipes_are_code_needs_consent(digits, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("raise SystemExit('ran')")
    (tmp_path / "study.toml").write_text(STUDY.replace('"digits"', '"mine.py:mine"'))
    assert run("--study", "study.toml") == 2
    assert "--trust-study" in capsys.readouterr().err
    assert run("--study", "no-such-study") == 2
