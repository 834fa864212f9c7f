"""Recipes of a person's own: in a file, in a package, in studies, and what is refused."""

from __future__ import annotations

import json

import pytest

from command_line import runner_in_this_process
from golu_core.studies import aggregate, sweep
from golu_core.training.messages.errors import RequestError
from golu_core.training.tasks import task as tasks
from golu_translate.cli import COMMAND_LINE as TRANSLATORS
from golu_vision.cli import COMMAND_LINE
from golu_vision.recipes import RECIPES

FILE = """
from dataclasses import replace
from golu_vision.recipes import RECIPES
from golu_lm.recipes import RECIPES as TEXTS
from golu_translate.recipes import RECIPES as PAIRS

tiny = replace(RECIPES["mlp-digits"], epochs=1, max_steps=3)
digits = tiny
words = replace(TEXTS["babygpt-pydocs"], steps=2)
talk = replace(PAIRS["transformer-numbers"], steps=2)
number = 3
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "my_recipes.py").write_text(FILE)
    return tmp_path


@pytest.fixture
def vision(monkeypatch, capfd):
    return runner_in_this_process(COMMAND_LINE, monkeypatch, capfd)


def test_trained_evaluated_and_put_into_a_table(folder, vision, capfd):
    done = vision("train", "./my_recipes.py:tiny", "--optim.lr", "0.02", cwd=folder)
    assert done.returncode == 0, done.stderr
    place = folder / "runs/vision/tiny/golu/seed0"
    config = json.loads((place / "config.json").read_text())
    assert (config["recipe"], config["epochs"], config["optim"]["lr"]) == ("tiny", 1, 0.02)
    (folder / "my_recipes.py").write_text(FILE + "# what else the file holds does not matter\n")
    done = vision("train", str(folder / "my_recipes.py:tiny"), "--optim.lr", "0.02", cwd=folder)
    assert done.returncode == 0 and "finished already" in done.stdout
    (folder / "my_recipes.py").write_text(FILE.replace("max_steps=3", "max_steps=2"))
    done = vision("train", "./my_recipes.py:tiny", "--optim.lr", "0.02", cwd=folder)
    assert done.returncode == 2 and "max_steps: 3 there, 2 asked for" in done.stderr
    (folder / "my_recipes.py").unlink()
    done = vision("evaluate", str(place), cwd=folder)
    assert done.returncode == 0 and "to the last digit" in done.stderr
    assert aggregate.main([str(folder / "runs")]) == 0
    assert " tiny " in capfd.readouterr().out


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./my_recipes.py:tinny", "has no tinny, did you mean tiny?"),
        ("./my_recipe.py:tiny", "there is no file my_recipe.py, did you mean my_recipes.py?"),
        ("./my_recipes.py:number", "a int is not a recipe"),
        ("./my_recipes.py:digits", "digits is a recipe of golu-vision already"),
        ("./my_recipes.py:words", "is a recipe of golu-lm: use golu-lm train ./my_recipes.py:words"),
        ("./my_recipes.py:tiny(a=1)", "names no object"),
        ("no_such_package:tiny", "there is no package 'no_such_package'"),
        ("tiny", "to use your own: ./file.py:name"),
    ],
)
def test_what_is_no_recipe_is_refused(name, message, folder, vision):
    done = vision("train", name, cwd=folder)
    assert done.returncode == 2 and message in done.stderr and not (folder / "runs").exists()


def test_a_translator_of_ones_own_is_known_as_one(folder, monkeypatch, capfd):
    run = runner_in_this_process(TRANSLATORS, monkeypatch, capfd)
    done = run("train", "./my_recipes.py:talk", "--dry-run", cwd=folder)
    assert done.returncode == 0 and "talk" in done.stdout, done.stderr


def test_packages_register_recipes(monkeypatch, vision, tmp_path):
    class Entry:
        name, value = "theirs", "their_package:theirs"

        def load(self):
            return RECIPES["mlp-digits"]

    monkeypatch.setattr(tasks, "entry_points", lambda group: [Entry()] if group == "golu.recipes.vision" else [])
    tasks._registered_recipes.cache_clear()
    try:
        assert "theirs" in tasks.recipes_of(tasks.installed_tasks()["vision"])
        done = vision("train", "theirs", "--dry-run", cwd=tmp_path)
        assert done.returncode == 0 and "recipe       theirs" in done.stdout
        assert tasks.named_recipe("theirs")[1].recipe == "theirs"
        Entry.load = lambda self: 3
        tasks._registered_recipes.cache_clear()
        with pytest.raises(RequestError, match="is not a recipe"):
            tasks.named_recipe("theirs")
    finally:
        monkeypatch.undo()
        tasks._registered_recipes.cache_clear()


@pytest.mark.slow
def test_a_study_of_one(folder, monkeypatch, capsys):
    (folder / "study.toml").write_text(
        'activations = ["relu", "golu"]\nseeds = [0]\n[[experiment]]\nrecipes = ["./my_recipes.py:tiny"]\n'
    )
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert sweep.main(["study.toml", "--trust-study"]) == 0, capsys.readouterr()
    assert {path.parts[-3] for path in folder.glob("runs/vision/tiny/*/seed0/result.json")} == {"relu", "golu"}
