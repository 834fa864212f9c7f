"""What fields may hold, over all fields of all recipes and all flags of all commands, by generation."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator

import pytest
import tyro

from command_line import runner_in_this_process
from flips import flips_of
from golu_core.studies import aggregate, sweep
from golu_core.training.config.optim import AdamW, RmsPropTf, Sgd, WeightAverage
from golu_core.training.config.run_config import EpochConfig, RunConfig, checked
from golu_core.training.config.schedules import Constant, Cosine, ExponentialDecay, Milestones, Polynomial
from golu_core.training.config.variants import alternatives, chosen
from golu_core.training.messages.errors import RequestError
from golu_core.training.tasks.task import resolved
from golu_detect.cli import COMMAND_LINE as GOLU_DETECT
from golu_diffusion.cli import COMMAND_LINE as GOLU_DIFFUSION
from golu_lm.cli import COMMAND_LINE as GOLU_LM
from golu_translate.cli import COMMAND_LINE as GOLU_TRANSLATE
from golu_vision.cli import COMMAND_LINE as GOLU_VISION

PROGRAMS = {program.program: program for program in (GOLU_VISION, GOLU_LM, GOLU_TRANSLATE, GOLU_DETECT, GOLU_DIFFUSION)}
RECIPES = [(program, name) for program, line in PROGRAMS.items() for name in line.recipes]
WRONG = ("-1", "0", "nan", "inf", "1e400", str(10**30), "two", "", "\0")


@pytest.fixture
def programs(monkeypatch, capfd):
    return {name: runner_in_this_process(line, monkeypatch, capfd) for name, line in PROGRAMS.items()}


@pytest.mark.parametrize(("program", "recipe"), RECIPES)
def test_every_recipe_passes_its_own_checks(program, recipe):
    config = PROGRAMS[program].recipes[recipe]
    assert checked(config) == config


def numeric_fields(config, prefix=""):
    """Paths of the fields that hold numbers, their values, and whether None is one."""
    hints = typing.get_type_hints(type(config), include_extras=True)
    for f in dataclasses.fields(config):
        value, path = getattr(config, f.name), f"{prefix}{f.name}"
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from numeric_fields(value, f"{path}.")
        elif f.name not in ("recipe", "paper"):
            yield path, value, hints[f.name]


def fields_once():
    """Each field once for each class that declares it: program, recipe, path and value."""
    seen = set()
    for program, name in RECIPES:
        recipe = PROGRAMS[program].recipes[name]
        for path, value, _ in numeric_fields(recipe):
            owner, _, field = path.rpartition(".")
            holder = type(_value(recipe, owner) if owner else recipe)
            declaring = next(cls for cls in holder.__mro__ if field in vars(cls).get("__annotations__", ()))
            if (path, declaring) not in seen and not isinstance(value, bool):
                seen.add((path, declaring))
                yield program, name, path, value


def refusal(line, arguments):
    """Why a command line is refused, None if it is taken; anything but a refusal is an error of the test."""
    try:
        line.config(arguments)
    except RequestError as error:
        return str(error)
    except SystemExit as stop:  # tyro's, for what is no value of the type
        return f"status {stop.code}"
    return None


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_no_value_of_any_flag_is_a_traceback(program):
    """Every flag with every wrong value is taken as a value of its type and range, or refused with status 2."""
    line = PROGRAMS[program]
    taken = []
    for recipe, path, value in [found[1:] for found in fields_once() if found[0] == program]:
        for wrong in WRONG:
            if refusal(line, [recipe, "--" + path.replace("_", "-"), wrong]) is None:
                taken.append((path, wrong, type(value)))
    assert [case for case in taken if case[1] in ("-1", "nan", "inf", "1e400") and case[2] in (int, float, tuple)] == []
    assert [case for case in taken if case[1] == str(10**30) and case[2] is int] == []
    assert [case for case in taken if case[1] == "\0"] == []
    may_be_zero = {path.split(".")[-1] for path, wrong, _ in taken if wrong == "0"}
    assert not {"epochs", "batch_size", "lr", "steps", "max_steps", "clip", "log_every", "every", "size"} & may_be_zero


def _value(config, path):
    for name in path.split("."):
        config = getattr(config, name)
    return config


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digits", "--epochs", "0"], "--epochs must be at least 1, not 0"),
        (["digits", "--epochs", "-3"], "--epochs must be at least 1, not -3"),
        (["digits", "--clip", "-1"], "--clip must be above 0, not -1.0"),
        (["digits", "--clip", "0"], "--clip must be above 0"),
        (["digits", "--mix", "mix", "--mix.mixup", "0.2", "--mix.group", "0"], "--mix.group must be at least 1"),
        (["digits", "--optim.lr", "-0.001"], "--optim.lr must be above 0"),
        (["digits", "--optim.lr", "nan"], "--optim.lr must be finite"),
        (["digits", "--optim.momentum", "1"], "--optim.momentum must be below 1"),
        (["digits", "--optim.momentum", "0"], "--optim.nesterov needs a --optim.momentum above 0"),
        (["digits", "--model.drop", "0.5"], "only work with timm models, not with cifar/resnet20"),
        (["digits", "--augment", "tim"], "one of crop, torchvision, timm, not 'tim', did you mean timm?"),
        (["digits", "--average.decay", "0"], "keeps no average"),
        (["digits", "--mix", "mix"], "--mix.mixup or --mix.cutmix must be above 0"),
        (["digits", "--data.download"], "only works with CIFAR-10, MNIST, and Fashion-MNIST"),
        (["digits", "--data.revision", "main"], "name one with --data.hub"),
        (["digits", "--seed", str(2**64)], "--seed must be at most"),
        (["digits", "--schedule", "milestones", "--schedule.milestones", "5", "3"], "must increase"),
        (["digits", "--schedule", "milestones", "--schedule.factors", "0.1", "0.1", "0.1"], "one for each"),
        (["digits", "--schedule", "milestones", "--schedule.warmup.epochs", "1", "--schedule.warmup.then", "goes_on"],
         "has no effect on this schedule"),
    ],
)  # fmt: skip
def test_impossible_requests_are_refused_in_words(arguments, message):
    with pytest.raises(RequestError) as error:
        GOLU_VISION.config(arguments)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--schedule.warmup.epochs", "5"], "Unrecognized"),
        (["--schedule.warmup", "epochs"], "has no epochs: pass --schedule.warmup.steps instead"),
        (["--schedule", "milestones"], "--schedule milestones is impossible"),
        (["--schedule.per", "epoch"], "--schedule.per must be step"),
    ],
)
def test_a_task_without_epochs_has_none_in_its_schedule(arguments, message, capsys):
    with pytest.raises((RequestError, SystemExit)) as error:
        GOLU_LM.config(["babygpt-pydocs", *arguments])
    assert message in str(error.value) + capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------------- variants


def test_a_variant_is_chosen_by_its_name_and_has_its_own_flags():
    config = GOLU_VISION.config(["digits", "--optim", "adamw", "--optim.betas", "0.8", "0.9", "--augment=timm"])
    assert config.optim == AdamW(betas=(0.8, 0.9)) and config.augment.kind == "timm"
    assert GOLU_VISION.config(
        ["digits", "--optim", "SGD", "--optim.lr", "0.3"]
    ).optim.nesterov  # the recipe's own stays
    with pytest.raises(SystemExit):
        GOLU_VISION.config(["digits", "--optim.betas", "0.8", "0.9"])


def test_a_flag_of_the_only_alternative_is_choice_enough():
    assert GOLU_VISION.config(["digits", "--average.decay", "0.99"]).average == WeightAverage(0.99)
    assert GOLU_VISION.config(["digits", "--mix.cutmix", "1", "--mix.group", "8"]).mix.group == 8
    config = GOLU_VISION.config(["digits", "--schedule", "poly", "--schedule.warmup.steps", "7"])
    assert config.schedule.warmup.kind == "steps" and config.schedule.warmup.steps == 7
    assert GOLU_VISION.config(["vit-b16-imagenet", "--average", "none"]).average is None


@dataclasses.dataclass(frozen=True, kw_only=True)
class AllVariants(EpochConfig):
    average: WeightAverage | None = None


@pytest.mark.parametrize("optim", [Sgd(), AdamW(), RmsPropTf()])
@pytest.mark.parametrize("schedule", [Constant(), Milestones(), ExponentialDecay(), Cosine(), Polynomial()])
@pytest.mark.parametrize("average", [None, WeightAverage()])
def test_variants_survive_json(optim, schedule, average):
    from golu_core.training.config.run_config import from_json, to_json

    config = AllVariants(optim=optim, schedule=schedule, average=average)
    values = to_json(config)
    assert from_json(AllVariants, values) == config
    assert values["optim"]["kind"] == optim.kind
    with pytest.raises(RequestError, match="not one of"):
        from_json(AllVariants, {**values, "optim": {**values["optim"], "kind": "lion"}})
    with pytest.raises(RequestError):
        from_json(AllVariants, {**values, "epochs": 0})


def test_common_fields_stand_once():
    """What two tasks share is a field of the common config, not one of each."""
    own = {
        type(next(iter(line.recipes.values()))).__name__: {
            f.name for f in dataclasses.fields(next(iter(line.recipes.values())))
        }
        - {f.name for f in dataclasses.fields(EpochConfig)}
        for line in PROGRAMS.values()
    }
    counts = {name: sum(name in fields for fields in own.values()) for fields in own.values() for name in fields}
    of_each = ("model", "data", "average")  # of each task's own kinds
    assert [name for name, count in counts.items() if count > 2 and name not in of_each] == []
    assert {f.name for f in dataclasses.fields(RunConfig)} >= {"optim", "schedule", "batch_size", "clip"}


def test_chosen_leaves_other_flags_alone():
    recipe, left = chosen(GOLU_VISION.recipes["digits"], ["--seed", "3", "--augment", "torchvision", "--optim.lr=0.5"])
    assert left == ["--seed", "3", "--optim.lr=0.5"]
    assert recipe.augment.kind == "torchvision"


def test_flips_cover_every_flag_of_the_command_line():
    """The test that changes every field sees as many fields as a recipe has flags."""
    config = GOLU_VISION.recipes["digits"]
    paths = {flip.path for flip in flips_of(config)}
    assert {path for path, _, _ in numeric_fields(config)} <= paths | {"recipe", "paper"}


# ----------------------------------------------------------------------------------------------------------------- help


COMMANDS = [
    (program, name)
    for program, line in PROGRAMS.items()
    for name in ("recipes", "train", "evaluate", *line.task.commands)
]


@pytest.mark.parametrize(("program", "command"), COMMANDS)
@pytest.mark.parametrize("word", ["--help", "-h"])
@pytest.mark.parametrize("before", [[], ["runs/nothing"]])
def test_every_command_answers_help(program, command, word, before, programs, tmp_path):
    if command in ("train", "recipes") and before:
        before = [next(iter(PROGRAMS[program].recipes))]
    done = programs[program](command, *before, word, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"usage: {program} {command}" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("program", "command"), [c for c in COMMANDS if c[1] not in ("recipes", "sample-data")])
@pytest.mark.parametrize("words", [[], ["no/such/place"], ["--nonsense"], ["\ud800"], ["x" * 5000]])
def test_every_command_refuses_nonsense_with_one_message(program, command, words, programs, tmp_path):
    done = programs[program](command, *words, cwd=tmp_path)
    if words or command != "train":
        assert done.returncode in (1, 2), done.stdout
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def described(cls: type, seen: set[type]) -> Iterator[tuple[type, str]]:
    """All fields of a dataclass and of those in it, each class once."""
    if cls in seen or not dataclasses.is_dataclass(cls):
        return
    seen.add(cls)
    hints = typing.get_type_hints(cls, include_extras=True)
    for f in dataclasses.fields(cls):
        hint = hints[f.name]
        inner = [*(alternatives(hint) or {}).values(), hint, *typing.get_args(hint)]
        classes = [part for part in inner if isinstance(part, type) and dataclasses.is_dataclass(part)]
        if classes:
            for part in classes:
                yield from described(part, seen)
        elif tyro.conf.Suppress not in typing.get_args(hint):
            yield cls, f.name


def all_described() -> list[tuple[type, str]]:
    seen: set[type] = set()
    roots = [type(recipe) for line in PROGRAMS.values() for recipe in line.recipes.values()]
    for line in PROGRAMS.values():
        flags = [command.flags for command in line.task.commands.values() if command.flags]
        roots += [resolved(found) for found in (*flags, line.task.evaluation_flags)]
    roots += [sweep.Flags, aggregate.Flags]
    return [found for root in roots for found in described(root, seen)]


@pytest.mark.parametrize(("cls", "name"), all_described(), ids=lambda part: getattr(part, "__name__", part))
def test_every_flag_says_what_it_does(cls, name):
    """In a sentence: from a capital letter or a value to a full stop."""
    from tyro._docstrings import get_field_docstring

    said = get_field_docstring(cls, name, ()) or ""
    assert re.match(r"[A-Z0-9`]", said), said
    assert said.rstrip().endswith("."), said
    assert not re.match(r"(Of|Its|By) ", said), said
