"""`[tune]` of a study: trials, choices, tuned runs, and what a report says of them."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from golu_core.studies import aggregate, sweep
from golu_core.studies.reporting.choices import TUNED_FILE, read_choices
from golu_core.studies.reporting.collect import collect
from golu_core.studies.reporting.report import Report
from golu_core.studies.reporting.tuned import with_tuning
from golu_core.studies.sweeping import local
from golu_core.studies.sweeping.study import PlannedRun, Study, Tuning, planned_runs, study_from
from golu_core.studies.sweeping.tuning import chosen_settings, pilot_runs, trials_of, tuned_runs
from golu_core.training.config.named_activations import planned_activation
from golu_core.training.messages.errors import RequestError
from golu_core.training.runs.failures import FAILURE_FILE
from golu_core.training.runs.run_files import write_config
from runs_on_disk import write_run

TUNE = {"seeds": [100, 101, 102], "trials": 4, "log_uniform": {"optim.lr": [0.02, 1.0]}}
BEST = {"relu": 0.05, "golu": 0.2}  # digits' own rate is 0.1


def study(folder: Path, tune: dict[str, Any] = TUNE, **values: Any) -> Study:
    experiment = values.pop("experiment", [{"recipes": ["digits"]}])
    plan = {"activations": ["relu", "golu"], "seeds": [0, 1, 2], "experiment": experiment, "tune": tune, **values}
    return study_from({"output_dir": str(folder), **plan}, "a test")


def write(run: PlannedRun, value: float) -> None:
    config = run.config
    settings = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    del settings["recipe"], settings["activation"], settings["seed"]
    write_run(
        config.output_dir,
        run.task.name,
        config.recipe,
        config.activation,
        config.seed,
        {"top1": value},
        place=run.folder,
        **settings,
    )


def accuracy(run: PlannedRun) -> float:
    """A curve over the rate that is highest at another place for each activation, the same for all seeds but a bit."""
    return 97.0 - 3 * math.log10(run.config.optim.lr / BEST[run.config.activation]) ** 2 + run.config.seed % 3 / 100


def finish(plan: Study) -> list[PlannedRun]:
    """Write the results of all runs of a study, and return the tuned runs."""
    for run in [*pilot_runs(plan, planned_activation), *planned_runs(plan)]:
        write(run, accuracy(run))
    choices = chosen_settings(plan, planned_activation)
    assert choices is not None
    tuned = tuned_runs(plan, planned_activation, choices)
    for run in tuned:
        write(run, accuracy(run))
    return tuned


def report_of(folder: Path) -> Report:
    return Report(with_tuning(collect([folder]), [folder]), "golu")


# --------------------------------------------------------------------------------------------------------------- trials


def test_trials_begin_with_the_recipes_own_setting_and_cover_the_range():
    tune = Tuning(seeds=[9], log_uniform={"optim.lr": [0.01, 1.0]}, trials=15)
    values = [trial["optim.lr"] for trial in trials_of(tune, {"optim.lr": 0.1})]
    assert values[0] == 0.1 and len(values) == len(set(values)) == 15  # 0.1 is one of the points as well
    places = sorted(math.log10(value) for value in values)
    assert all(-2 < place < 0 for place in places)
    assert max(b - a for a, b in zip([-2.0, *places], [*places, 0.0], strict=True)) < 0.26
    assert [trial["optim.lr"] for trial in trials_of(dataclasses.replace(tune, trials=3), {"optim.lr": 0.5})] == [
        0.5,
        0.1,
        0.0316,
        0.316,
    ]


def test_values_are_combined_and_mixed_with_ranges():
    own = {"optim.nesterov": False, "epochs": 5}
    tune = Tuning(seeds=[9], values={"optim.nesterov": [True, False], "epochs": [5, 6]})
    found = trials_of(tune, own)
    assert found[0] == own and len(found) == 4
    mixed = dataclasses.replace(tune, log_uniform={"optim.lr": [0.1, 0.2]}, trials=20)
    trials = trials_of(mixed, {"optim.lr": 0.1, **own})
    assert {trial["optim.nesterov"] for trial in trials} == {True, False} and {t["epochs"] for t in trials} == {5, 6}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"log_uniform": {}}, "names no flag"),
        ({"seeds": []}, "has no seeds"),
        ({"seeds": [2, 100]}, r"uses the seeds \[2\] of the study"),
        ({"log_uniform": {"epochs": [1, 2]}}, "has epochs twice, or in flags as well"),
        ({"values": {"optim.lr": [0.1]}}, "has optim.lr twice"),
        ({"log_uniform": {"optim.lr": [0.1, 0.1]}}, "not two increasing numbers"),
        ({"log_uniform": {"optim.lr": [0.0, 0.1]}}, "not two increasing numbers"),
        ({"log_uniform": {"optim.lr": [0.1]}}, "not two increasing numbers"),
        ({"values": {"epochs2": []}}, "empty list of values"),
        ({"trials": 0}, "has 0 trials"),
    ],
)
def test_what_cannot_be_tuned_is_refused(change: dict[str, Any], message: str, tmp_path: Path):
    experiment = [{"recipes": ["digits"], "flags": {"epochs": 2}}]
    with pytest.raises(RequestError, match=message):
        study(tmp_path, {**TUNE, **change}, experiment=experiment)


def test_flags_that_a_recipe_lacks_are_refused_before_anything_runs(tmp_path):
    for flags, message in (
        ({"log_uniform": {"optim.speed": [0.1, 1.0]}}, "digits has no optim.speed"),
        ({"log_uniform": {"optim.nesterov": [0.1, 1.0]}}, "which no range of numbers fits"),
    ):
        plan = study(tmp_path, {"seeds": [100], **flags})
        with pytest.raises(RequestError, match=message):
            pilot_runs(plan, planned_activation)
    with pytest.raises(RequestError, match="sets holdout"):
        study(tmp_path, experiment=[{"recipes": ["digits"], "flags": {"holdout": "validation"}}])


def test_flags_of_the_command_cannot_undo_what_tuning_needs(tmp_path, capsys):
    path = tmp_path / "study.toml"
    tune = 'seeds = [5]\nlog_uniform = { "optim.lr" = [0.1, 0.2] }'
    path.write_text(f'seeds = [0]\n[tune]\n{tune}\n[[experiment]]\nrecipes = ["digits"]\n')
    for flags, message in (
        (["--seeds", "4", "5"], "uses the seeds [5] of the study"),
        (["--set", "optim.lr=0.1"], "has optim.lr twice, or in flags as well"),
        (["--set", "holdout=validation"], "sets holdout"),
    ):
        assert sweep.main([str(path), "--print", *flags]) == 2
        assert message in capsys.readouterr().err


# -------------------------------------------------------------------------------------------------------------- choices


def test_each_activation_gets_its_own_best_setting(tmp_path):
    plan = study(tmp_path)
    pilots = pilot_runs(plan, planned_activation)
    assert len(pilots) == 2 * 5 * 3 and {run.config.seed for run in pilots} == {100, 101, 102}
    assert all(run.is_pilot and run.folder.is_relative_to(tmp_path / "tune") for run in pilots)
    assert [run.config.activation for run in pilots[:4]] == ["relu", "golu", "relu", "golu"]
    assert len({run.name for run in [*pilots, *planned_runs(plan)]}) == len(pilots) + 6  # each has a log of its own
    assert chosen_settings(plan, planned_activation) is None and not (tmp_path / TUNED_FILE).exists()
    tuned = finish(plan)
    rates = {run.config.activation: run.config.optim.lr for run in tuned}
    tried = {run.config.optim.lr for run in pilots}
    assert rates == {name: min(tried, key=lambda v, b=best: abs(math.log(v / b))) for name, best in BEST.items()}
    assert {run.config.seed for run in tuned} == {0, 1, 2} and not any(run.is_pilot for run in tuned)
    assert [choice.setting["optim.lr"] for choice in read_choices(tmp_path)] == [rates["relu"], rates["golu"]]
    chosen_settings(plan, planned_activation)  # again, with the same outcome


def test_a_failed_pilot_run_is_the_worst_and_of_equal_settings_the_recipes_own_is_kept(tmp_path):
    plan = study(tmp_path)
    for run in pilot_runs(plan, planned_activation):
        if run.config.optim.lr > 0.3 and run.config.seed > 100:  # two of three
            run.folder.mkdir(parents=True)
            write_config(run.folder, run.config)
            (run.folder / FAILURE_FILE).write_text("{}")
        else:
            write(run, 99.0 if run.config.optim.lr > 0.3 else 90.0)
    choices = chosen_settings(plan, planned_activation)
    assert choices is not None and all(choice.is_own(choice.setting) for choice in choices)
    assert [choice.chosen_by(seed) is choice.trials[0] for choice in choices for seed in (100, 101, 102)] == [
        False,
        True,
        True,
    ] * 2  # at seed 100 the high rates did not fail
    failed = [trial for trial in choices[0].trials if trial.setting["optim.lr"] > 0.3]
    assert failed and all(trial.median(True) == -math.inf for trial in failed)
    tuned = tuned_runs(plan, planned_activation, choices)
    assert [run.config.seed for run in tuned] == [0, 0] and all(run.config.optim.lr > 0.3 for run in tuned)


def test_each_seed_is_trained_with_the_choice_of_one_pilot_seed(tmp_path):
    """So that the luck of a choice is in the spread over seeds, as the simulation in docs/studies.md needs it."""
    plan = study(tmp_path, seeds=list(range(7)))
    luck = {100: 0.05, 101: 0.2, 102: 0.7}
    for run in [*pilot_runs(plan, planned_activation), *planned_runs(plan)]:
        near = luck.get(run.config.seed, 0.1)
        write(run, 90 - abs(math.log(run.config.optim.lr / near)))
    choices = chosen_settings(plan, planned_activation)
    assert choices is not None
    tried = [trial.setting["optim.lr"] for trial in choices[0].trials]
    nearest = {seed: min(tried, key=lambda v, n=near: abs(math.log(v / n))) for seed, near in luck.items()}
    assert len(set(nearest.values())) == 3
    rates = {run.config.seed: run.config.optim.lr for run in tuned_runs(plan, planned_activation, choices)}
    assert rates == {seed: nearest[100 + seed % 3] for seed in range(7)}


def test_a_choice_at_the_edge_is_named(tmp_path, capsys):
    plan = study(tmp_path, {**TUNE, "log_uniform": {"optim.lr": [0.1, 0.11]}})
    finish(plan)
    assert [choice.at_edge for choice in read_choices(tmp_path)] == [["optim.lr"], ["optim.lr"]]
    assert "At the edge of the range tried" in " ".join(report_of(tmp_path).answer)


@pytest.mark.parametrize(
    "damage", [lambda text: text[: len(text) // 2], lambda text: text.replace("digits", "digit"), len]
)
def test_a_damaged_choice_is_refused(damage: Any, tmp_path: Path):
    finish(study(tmp_path))
    path = tmp_path / TUNED_FILE
    path.write_text(str(damage(path.read_text())))
    with pytest.raises(RequestError, match=r"tuned\.json cannot be used"):
        read_choices(tmp_path)
    with pytest.raises(RequestError, match=r"tuned\.json cannot be used"):
        report_of(tmp_path)


def test_choices_that_pilot_runs_no_longer_give_are_refused(tmp_path):
    plan = study(tmp_path)
    finish(plan)
    with pytest.raises(RequestError, match="were changed"):
        chosen_settings(study(tmp_path, {**TUNE, "trials": 3}), planned_activation)


# --------------------------------------------------------------------------------------------------------- in a report


def test_a_report_makes_its_claims_on_tuned_runs_and_shows_both(tmp_path, capsys):
    finish(study(tmp_path, seeds=list(range(8))))
    assert aggregate.main([str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "digits (optim.lr=0.1)" in shown and "digits (optim.lr=tuned)" in shown
    assert "5 settings of optim.lr and 3 pilot seeds for each, the same for all activations" in shown
    report = report_of(tmp_path)
    assert len(report.collection.pilots) == 30 and report.collection.left_out == []
    assert [row.variant for row, _ in report.paired] == ["optim.lr=tuned"]
    assert [row.variant for row in report.over.rows] == ["optim.lr=tuned"]
    values = {row.variant: {name: cell.n for name, cell in row.cells.items()} for row in report.rows}
    assert values == {"optim.lr=0.1": {"relu": 8, "golu": 8}, "optim.lr=tuned": {"relu": 8, "golu": 8}}
    assert "tuning-digits.png" in {name.rpartition("/")[2] for name in report.files("png")}
    tuning = json.loads(report.files("png")["report.json"])["tuning"]
    assert [(t["activation"], t["setting"]) for t in tuning] == [
        (choice.activation, choice.setting) for choice in report.collection.choices
    ]


def test_an_activation_that_keeps_the_recipes_setting_has_the_same_runs_in_both_rows(tmp_path, monkeypatch):
    monkeypatch.setitem(BEST, "relu", 0.1)
    tuned = finish(study(tmp_path))
    assert {run.config.activation for run in tuned} == {"golu"}
    rows = {row.variant: row for row in report_of(tmp_path).rows}
    assert rows["optim.lr=0.1"].cells["relu"].values == rows["optim.lr=tuned"].cells["relu"].values
    assert rows["optim.lr=0.1"].cells["golu"].values != rows["optim.lr=tuned"].cells["golu"].values


def test_each_variant_of_a_study_is_tuned_by_itself(tmp_path):
    plan = study(tmp_path, experiment=[{"recipes": ["digits"], "flags": {"epochs": [2, 3]}}])
    assert len(pilot_runs(plan, planned_activation)) == 2 * 30
    finish(plan)
    assert {(choice.variant, choice.activation) for choice in read_choices(tmp_path)} == {
        (variant, name) for variant in ("epochs=2", "epochs=3") for name in BEST
    }
    rows = [row for row in report_of(tmp_path).rows if "tuned" in row.variant]
    assert [{name: cell.n for name, cell in row.cells.items()} for row in rows] == [{"relu": 3, "golu": 3}] * 2


def test_what_was_unfair_is_said(tmp_path):
    finish(study(tmp_path))
    (said,) = [text for text in report_of(tmp_path).answer if text.startswith("Settings were tuned")]
    assert said.endswith("never on the test set.")
    write_run(tmp_path, "vision", "digits", "mish", 100, {"top1": 95.0})
    (said,) = [text for text in report_of(tmp_path).answer if text.startswith("Settings were tuned")]
    assert "digits was tuned on seeds that it is compared on; Mish was not tuned in digits" in said


def test_runs_on_held_out_data_are_in_no_table_beside_others_and_are_named_alone(tmp_path):
    for name in BEST:
        for seed in range(2):
            write_run(tmp_path / "test", "vision", "digits", name, seed, {"top1": 90.0})
            write_run(tmp_path / "held", "vision", "digits", name, seed, {"top1": 95.0}, holdout="validation")
    report = report_of(tmp_path)
    assert [cell.mean for row in report.rows for cell in row.cells.values()] == [90.0, 90.0]
    assert {left.reason for left in report.collection.left_out} == {
        "evaluated on held-out training data, not on the test set"
    }
    assert "All runs were evaluated on held-out training data" in " ".join(report_of(tmp_path / "held").answer)


# --------------------------------------------------------------------------------------------------------- as a command


def test_a_sweep_tunes_then_trains_and_a_second_one_finds_nothing_to_do(tmp_path, monkeypatch, capsys):
    starts = tmp_path / "starts.jsonl"
    starts.touch()
    monkeypatch.setenv("STARTS", str(starts))
    stand_in = Path(__file__).with_name("stand_in.py")
    monkeypatch.setattr(local, "with_this_python", lambda command: [sys.executable, str(stand_in), *command[2:]])
    monkeypatch.setattr(local, "visible_gpus", list)
    path = tmp_path / "study.toml"
    path.write_text(
        f'output_dir = "{tmp_path / "runs"}"\nactivations = ["golu"]\nseeds = [0]\nparallel = 2\n'
        '[tune]\nseeds = [5]\nvalues = { "epochs" = [1, 2] }\n[[experiment]]\nrecipes = ["digits"]\n'
    )
    assert sweep.main([str(path), "--print"]) == 0
    printed = capsys.readouterr()
    assert printed.out.count("--holdout validation") == 3 and "tuned runs follow from the pilot runs" in printed.err
    assert sweep.main([str(path)]) == 0
    shown = capsys.readouterr().out
    assert "all pilot runs have ended" in shown and "the recipe's own" in shown  # the stand-in's results are all equal
    assert "epochs is at the edge" in shown
    assert len(starts.read_text().splitlines()) == 4
    assert sweep.main([str(path), "--status"]) == 0
    assert sweep.main([str(path)]) == 0
    assert len(starts.read_text().splitlines()) == 4
    capsys.readouterr()
    assert aggregate.main(["--study", str(path)]) == 0
    assert "All 1 planned runs have ended." in capsys.readouterr().out
