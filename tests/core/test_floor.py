"""The shared floor cannot be used wrongly in silence: runs, steps, watched losses, norms, purposes, tasks."""

from __future__ import annotations

import ast
import gc
import inspect
import json
import math
import weakref
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from unittest.mock import MagicMock

import numpy
import pytest
import torch
from torch import nn

from golu_core.training.data.seeding import Purpose
from golu_core.training.loop.run import Run
from golu_core.training.loop.steps import MicroBatch
from golu_core.training.loop.watch import LossWatch
from golu_core.training.messages.errors import RequestError, RunFailure
from golu_core.training.tasks import task as tasks
from golu_core.training.tasks.task import Task, installed_tasks, resolved
from tiny_task import TASK, Points, TinyConfig, loss_of, prepared, tiny_config, train

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(ROOT.glob("packages/*/src/**/*.py"))
FOLDER = Path("runs/tiny/line/golu/seed0")


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / FOLDER / "metrics.jsonl").read_text().splitlines()]


# ------------------------------------------------------------------------------------------------------------- steps


def test_every_step_sees_the_whole_batch(tmp_path):
    """Nothing but the config says how large a batch is and how it is split: 4 steps of 4 points, in 4 pieces each."""
    points = Points()
    train(tiny_config(tmp_path, micro_batch_size=1), points)
    assert len(points.asked) == 4 * 4
    assert sorted(points.asked[:8]) == list(range(8))
    result = json.loads((tmp_path / FOLDER / "result.json").read_text())
    assert result["steps"] == 4


def test_pieces_add_up_to_the_batch(tmp_path):
    train(tiny_config(tmp_path / "whole"))
    train(tiny_config(tmp_path / "pieces", micro_batch_size=2))
    whole, pieces = (metrics(tmp_path / name)[-1]["loss"] for name in ("whole", "pieces"))
    assert pieces == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("name", [name for name in dir(Run) if not name.startswith("_") and name != "prepare"])
def test_members_work_without_prepare_or_name_it(name, tmp_path):
    message = None
    with Run(tiny_config(tmp_path), TASK) as run:
        try:
            member = getattr(run, name)
            if callable(member):
                needed = [p for p in inspect.signature(member).parameters.values() if p.default is p.empty]
                values = {p.name: {"loss": 1.0} if p.name == "metrics" else MagicMock() for p in needed}
                found = member(**values)
                list(found) if inspect.isgenerator(found) else None
        except RuntimeError as error:
            message = str(error)
    assert message in (None, "call Run.prepare first")


def test_evaluation_before_prepare_names_prepare(tmp_path):
    with Run(tiny_config(tmp_path), TASK) as run, pytest.raises(RuntimeError, match="call Run"):
        next(run.evaluation.test_batches(Points()))


def test_a_run_goes_without_the_garbage_collector(tmp_path):
    """Loader processes that only a collection ends are waited for 20 seconds."""
    gc.collect()
    gc.disable()
    try:
        with Run(tiny_config(tmp_path), TASK) as run:
            model = prepared(run, Points())
            for _ in run.epochs():
                for micro_batch in run.micro_batches():
                    run.backward(micro_batch, loss_of(model, micro_batch.batch))
                run.report({"loss": float(len(list(run.evaluation.test_batches(Points()))))})
        left = weakref.ref(run)
        del run, model, micro_batch
        assert left() is None
    finally:
        gc.enable()


def loop(config: TinyConfig, take: Callable[[Run, nn.Module, MicroBatch], None]) -> None:
    """A run without its end, whose pieces something else takes."""
    with Run(config, TASK) as run:
        model = prepared(run, Points())
        for _ in run.epochs():
            for micro_batch in run.micro_batches():
                take(run, model, micro_batch)
            run.report({"loss": float(loss_of(model, (Points.x, Points.y)).detach())})


def forget(run: Run, model: nn.Module, micro_batch: MicroBatch) -> None:
    """Takes no step."""


def take_another(run: Run, model: nn.Module, micro_batch: MicroBatch) -> None:
    run.backward(MicroBatch(micro_batch.batch, micro_batch.ends_step), loss_of(model, micro_batch.batch))


def take_twice(run: Run, model: nn.Module, micro_batch: MicroBatch) -> None:
    run.backward(micro_batch, loss_of(model, micro_batch.batch))
    run.backward(micro_batch, loss_of(model, micro_batch.batch))


@pytest.mark.parametrize(
    ("take", "words"),
    [
        (forget, "pass the loss of each micro-batch"),
        (take_another, "once for each micro-batch"),
        (take_twice, "once for each micro-batch"),
    ],
)
def test_a_loop_that_is_wrong_is_an_error(tmp_path, take, words):
    with pytest.raises(RuntimeError, match=words):
        loop(tiny_config(tmp_path), take)


def test_a_loss_that_is_not_finite_stops_within_its_step(tmp_path):
    factors = iter([1.0, math.nan])

    def take(run: Run, model: nn.Module, micro_batch: MicroBatch) -> None:
        run.backward(micro_batch, loss_of(model, micro_batch.batch) * next(factors))

    with pytest.raises(RunFailure, match="the loss of step 2 is nan"):
        loop(tiny_config(tmp_path), take)


def test_the_last_evaluation_is_in_the_loop_also_after_a_continuation(tmp_path, monkeypatch):
    """A run that was killed in its last evaluation comes back to it, trains nothing and ends with the same bytes."""
    train(tiny_config(tmp_path / "whole"))
    config = tiny_config(tmp_path / "cut")
    real = Run.report

    def die_at_the_end(run: Run, metrics: dict[str, float]) -> None:
        if run.is_complete:
            raise KeyError
        real(run, metrics)

    monkeypatch.setattr(Run, "report", die_at_the_end)
    with pytest.raises(KeyError):
        train(config)
    monkeypatch.setattr(Run, "report", real)
    points = Points()
    train(config, points)
    assert points.asked == []
    weights = [(tmp_path / part / FOLDER / "model.safetensors").read_bytes() for part in ("cut", "whole")]
    assert weights[0] == weights[1]
    last = [{k: v for k, v in metrics(tmp_path / part)[-1].items() if k != "seconds"} for part in ("cut", "whole")]
    assert last[0] == last[1]


# ------------------------------------------------------------------------------------------------------------- losses


def test_losses_are_read_as_soon_as_they_are_there():
    watch = LossWatch()
    watch.send(1, 0.1, torch.tensor(2.5), torch.tensor(0.0), {"grad_norm": torch.tensor(3.0)})
    (first,) = watch.arrived()
    assert (first.step, first.lr, first.loss, first.stop, dict(first.norms)) == (1, 0.1, 2.5, False, {"grad_norm": 3.0})
    assert list(watch.arrived()) == [] == list(watch.all())


class _OnItsWay:
    """Stands in for a CUDA event."""

    waited = 0

    def synchronize(self) -> None:
        type(self).waited += 1


def test_one_loss_stays_under_way_on_a_gpu():
    """The device is never waited for in the step that it computes."""
    watch = LossWatch()
    for step in (1, 2, 3):
        watch.send(step, 0.1, torch.tensor(float(step)), torch.tensor(0.0), {})
        sent = watch._under_way.pop()
        watch._under_way.append(type(sent)(sent.step, sent.lr, sent.names, sent.values, _OnItsWay()))  # type: ignore[arg-type]
        assert [values.step for values in watch.arrived()] == ([step - 1] if step > 1 else [])
    assert [values.step for values in watch.all()] == [3]
    assert _OnItsWay.waited == 3


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_is_finite_or_not(loss):
    watch = LossWatch()
    watch.send(1, 0.1, torch.tensor(loss), torch.tensor(0.0), {})
    (values,) = watch.arrived()
    assert not values.is_finite


# -------------------------------------------------------------------------------------------------------------- norms


@pytest.mark.parametrize("clip", [None, 1e-3])
def test_norms_are_those_of_numpy(tmp_path, clip):
    """Gradient before clipping, weights and update after the step, by hand from the first step of SGD."""
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    weights = numpy.array([model.weight.item(), model.bias.item()])
    points = Points()
    train(tiny_config(tmp_path, log_every=1, clip=clip, max_steps=1), points)
    line = metrics(tmp_path)[0]
    x, y = points.x[points.asked].numpy().ravel(), points.y[points.asked].numpy().ravel()
    error = weights[0] * x + weights[1] - y
    gradient = numpy.array([(2 * error * x).mean(), (2 * error).mean()])
    norm = numpy.linalg.norm(gradient)
    used = gradient if clip is None else gradient * clip / norm
    assert line["grad_norm"] == pytest.approx(norm, rel=1e-5)
    assert line["update_norm"] == pytest.approx(0.1 * numpy.linalg.norm(used), rel=1e-3)
    assert line["weight_norm"] == pytest.approx(numpy.linalg.norm(weights - 0.1 * used), rel=1e-5)


def test_norms_are_taken_in_logged_steps_alone(tmp_path, monkeypatch):
    taken = []
    from golu_core.training.loop import learner

    real = learner.StepNorms
    monkeypatch.setattr(learner, "StepNorms", lambda parameters: taken.append(1) or real(parameters))
    train(tiny_config(tmp_path, log_every=2, epochs=3))
    assert len(taken) == 3
    weights = (tmp_path / FOLDER / "model.safetensors").read_bytes()
    train(tiny_config(tmp_path / "other", log_every=1, epochs=3))
    assert (tmp_path / "other" / FOLDER / "model.safetensors").read_bytes() == weights


# ----------------------------------------------------------------------------------------------------- random numbers


def test_random_numbers_have_a_purpose_from_the_table():
    """Every call that makes a seed names a Purpose, and each Purpose is used."""
    makers = {"derive_seed", "generator", "seed_global_generators", "seeded"}
    used, bare = set(), []
    for path in SOURCES:
        if path.name == "seeding.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or getattr(node.func, "id", None) not in makers:
                continue
            named = [
                argument.attr
                for argument in node.args
                if isinstance(argument, ast.Attribute) and getattr(argument.value, "id", None) == "Purpose"
            ]
            used |= set(named)
            if len(named) != 1:
                bare.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert bare == []
    assert used == {purpose.name for purpose in Purpose}
    assert len({purpose.value for purpose in Purpose}) == len(Purpose)


# -------------------------------------------------------------------------------------------------------------- tasks


def test_the_tasks_are_found_in_the_papers_order():
    assert [name for name, task in installed_tasks().items() if task.package.startswith("golu_")] == [
        "vision",
        "lm",
        "translation",
        "detect",
        "diffusion",
    ]


@pytest.mark.parametrize("task", installed_tasks().values(), ids=lambda task: task.name)
def test_what_a_task_names_is_there(task: Task):
    for reference in (task.train, task.evaluate):
        assert callable(resolved(reference))
    assert isinstance(resolved(task.evaluation_flags), type)
    for command in task.commands.values():
        assert callable(resolved(command.run))
        assert command.flags is None or isinstance(resolved(command.flags), type)
    for recipe in task.recipes.values():
        assert recipe.primary_metric in task.metrics
        assert recipe.default_activation
        assert recipe.paper is None or set(recipe.paper.results) <= set(task.metrics)


def entries(monkeypatch, *values: str) -> None:
    found = [EntryPoint(f"task{n}", value, tasks.GROUP) for n, value in enumerate(values)]
    monkeypatch.setattr(tasks, "entry_points", lambda group: found)
    installed_tasks.cache_clear()
    monkeypatch.setattr(tasks, "installed_tasks", installed_tasks)


@pytest.fixture(autouse=True)
def _forget_tasks():
    yield
    installed_tasks.cache_clear()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("no_such_package:TASK", "cannot be loaded"),
        ("tiny_task:RECIPES", "is not a golu_core.training.tasks.task.Task"),
    ],
)
def test_a_task_that_is_none_is_named(monkeypatch, value, words):
    entries(monkeypatch, "golu_vision.task:TASK", value)
    with pytest.raises(RequestError, match=words) as refusal:
        installed_tasks()
    assert value in str(refusal.value)


def test_two_tasks_of_one_name_are_refused(monkeypatch):
    import tiny_task

    monkeypatch.setattr(tiny_task, "OTHER", Task(**{**vars(TASK), "package": "other_task"}), raising=False)
    entries(monkeypatch, "tiny_task:TASK", "tiny_task:OTHER")
    with pytest.raises(RequestError, match="tiny_task and other_task both have a task named tiny"):
        installed_tasks()


# --------------------------------------------------------------------------------------------------------------- size


def lines_without_imports(path: Path) -> int:
    """The length of a file, without the statements that import: a long list of names is no long story."""
    text = path.read_text()
    nodes = [node for node in ast.parse(text).body if isinstance(node, ast.Import | ast.ImportFrom)]
    return len(text.splitlines()) - sum((node.end_lineno or node.lineno) - node.lineno + 1 for node in nodes)


def test_files_are_short_and_a_run_is_one_story():
    too_long = {
        str(path.relative_to(ROOT)): lines
        for path in SOURCES
        if (lines := lines_without_imports(path)) > (150 if path.name == "train.py" else 400)
    }
    assert too_long == {}


def test_task_packages_do_not_import_each_other_and_the_floor_imports_no_task():
    packages = {"golu_vision", "golu_lm", "golu_translate", "golu_detect", "golu_diffusion"}
    wrong = []
    for path in SOURCES:
        own = path.relative_to(ROOT / "packages").parts[2]
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            wrong += [(str(path), name) for name in names if name.split(".")[0] in packages - {own}]
    assert wrong == []
