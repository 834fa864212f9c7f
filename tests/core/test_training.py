"""The shared pieces of a training run, one by one."""

from __future__ import annotations

import dataclasses
import json
import math
import random
import subprocess
import sys
from types import SimpleNamespace

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from example_result import example_result
from golu_core.training.config.identity import config_sha256, differences, identity
from golu_core.training.config.optim import (
    AdamW,
    Optim,
    RmsPropTf,
    Sgd,
    WeightAverage,
    averaged_model,
    build_optimizer,
    parameter_groups,
)
from golu_core.training.config.run_config import RunConfig, checked, from_json, to_json
from golu_core.training.config.schedules import (
    Cosine,
    EpochWarmup,
    ExponentialDecay,
    Milestones,
    Polynomial,
    learning_rate,
)
from golu_core.training.data.loading import loaded
from golu_core.training.data.orders import EpochOrder, EvaluationBatches, TrainBatches, plan_batches
from golu_core.training.data.seeding import derive_seed, seeded
from golu_core.training.distributed.devices import default_device
from golu_core.training.messages.errors import RequestError, RunFailure
from golu_core.training.runs.checkpoint import checkpoint_folders, damage_of, newest_whole_checkpoint, save_checkpoint
from golu_core.training.runs.results import read_result, write_result
from golu_core.training.storage.locks import claim
from golu_core.training.storage.ownership import write_atomically


@given(
    length=st.integers(1, 200),
    batch=st.integers(1, 64),
    processes=st.sampled_from([1, 2, 4]),
    seed=st.integers(0, 3),
    drop_last=st.booleans(),
)
def test_global_batches_do_not_depend_on_the_number_of_processes(length, batch, processes, seed, drop_last):
    if batch % processes or batch > length:
        return
    order = EpochOrder(length, batch, seed, drop_last)
    plan = plan_batches(batch, processes, max_device_size=7)

    def steps(plan, processes):
        per_rank = [list(TrainBatches(order, plan, rank)) for rank in range(processes)]
        pieces = plan.accumulation
        return [
            [key for micro in range(pieces) for rank in per_rank for key in rank[step * pieces + micro]]
            for step in range(order.steps_per_epoch)
        ]

    assert steps(plan, processes) == steps(plan_batches(batch, 1), 1)


@given(length=st.integers(1, 200), batch=st.integers(1, 64), epoch=st.integers(0, 5))
def test_an_epoch_holds_every_sample(length, batch, epoch):
    if batch > length:
        with pytest.raises(RequestError, match="larger than the training set"):
            EpochOrder(length, batch, seed=1)
        return
    order = EpochOrder(length, batch, seed=1)
    indices = order.indices(epoch).tolist()
    assert set(indices) == set(range(length))
    assert len(indices) == order.steps_per_epoch * batch
    assert sorted(indices[:length]) == list(range(length))


def test_order_follows_seed_and_epoch():
    first = EpochOrder(1000, 10, seed=0)
    assert not torch.equal(first.indices(0), first.indices(1))
    assert not torch.equal(first.indices(0), EpochOrder(1000, 10, seed=1).indices(0))
    assert torch.equal(first.indices(3), EpochOrder(1000, 50, seed=0).indices(3))


def test_repeated_augmentation_is_torchvisions():
    """As RASampler of torchvision's reference: each image three times in a row, an epoch of whole multiples of 256."""
    order = EpochOrder(1000, 32, seed=0, repeats=3)
    indices = order.indices(0)
    assert order.steps_per_epoch == 1000 // 256 * 256 // 32
    assert torch.equal(indices[0::3][:100], indices[1::3][:100])
    assert torch.equal(indices[0::3][:100], indices[2::3][:100])


@given(length=st.integers(1, 100), size=st.integers(1, 17), processes=st.integers(1, 5))
def test_every_test_sample_counts_once(length, size, processes):
    batches = [list(EvaluationBatches(length, size, processes, rank)) for rank in range(processes)]
    assert len({len(b) for b in batches}) == 1
    assert all(len(keys) == size for rank in batches for keys in rank)
    counted = [key.sample for rank in batches for keys in rank for key in keys if key.position >= 0]
    assert sorted(counted) == list(range(length))


def test_a_batch_that_does_not_divide_names_sizes_that_do():
    with pytest.raises(RequestError, match="batch of 9 or 12, or 1, 2, 5, 10 processes"):
        plan_batches(10, 3)
    plan = plan_batches(4096, 4, 128)
    assert (plan.accumulation, plan.device_size) == (8, 128)


def test_processes_that_do_not_see_each_other_are_refused(monkeypatch, tmp_path):
    """A launcher that started two processes of which each is a world of its own."""
    from golu_core.training.distributed import devices

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(devices, "Accelerator", lambda **_: SimpleNamespace(num_processes=1))
    with pytest.raises(RequestError, match="ACCELERATE_USE_CPU=true"):
        devices.build_accelerator(RunConfig(recipe="r"), tmp_path)


def test_seeded_blocks_leave_the_generators_alone():
    torch.manual_seed(5)
    random.seed(5)
    numpy.random.seed(5)
    expected = torch.rand(1), random.random(), numpy.random.rand()
    torch.manual_seed(5)
    random.seed(5)
    numpy.random.seed(5)
    drawn = []
    for _ in range(2):
        with seeded(1, "augment", 2):
            drawn.append((torch.rand(1), random.random(), numpy.random.rand()))
    assert drawn[0] == drawn[1]
    assert (torch.rand(1), random.random(), numpy.random.rand()) == expected
    assert derive_seed(1, "a") != derive_seed(1, "b")


# ---------------------------------------------------------------------------------------------------------- schedules


def rates(schedule, base, steps_per_epoch, epochs):
    return [learning_rate(schedule, base, step, steps_per_epoch, epochs) for step in range(steps_per_epoch * epochs)]


def torch_rates(make, base, epochs):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=base)
    scheduler = make(optimizer)
    found = []
    for _ in range(epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_steps_equal_torchs_multi_step():
    ours = rates(Milestones(milestones=(3, 7), factors=(0.1,)), 0.1, 1, 10)
    expected = torch_rates(lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [3, 7], 0.1), 0.1, 10)
    assert ours == pytest.approx(expected)


def test_warm_up_and_cosine_equal_torchvisions_reference():
    def make(optimizer):
        warm = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.033, total_iters=5)
        main = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=25, eta_min=0.0)
        return torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, main], milestones=[5])

    ours = rates(Cosine(warmup=EpochWarmup(epochs=5, start_factor=0.033)), 3e-3, 1, 30)
    assert ours == pytest.approx(torch_rates(make, 3e-3, 30), rel=1e-6)


@pytest.mark.parametrize("per", ["epoch", "step"])
def test_cosine_equals_timms(per):
    from timm.scheduler import CosineLRScheduler

    steps_per_epoch, epochs = 4, 12
    scale = 1 if per == "epoch" else steps_per_epoch
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1e-3)
    scheduler = CosineLRScheduler(
        optimizer, t_initial=epochs * scale, lr_min=1e-5, warmup_t=3 * scale, warmup_lr_init=1e-6, t_in_epochs=True
    )
    expected = []
    for step in range(epochs * steps_per_epoch):
        scheduler.step(step if per == "step" else step // steps_per_epoch)
        expected.append(optimizer.param_groups[0]["lr"])
    schedule = Cosine(final_lr=1e-5, per=per, warmup=EpochWarmup(epochs=3, start_lr=1e-6, then="goes_on"))
    assert rates(schedule, 1e-3, steps_per_epoch, epochs) == pytest.approx(expected)


def test_decay_equals_timms():
    from timm.scheduler import StepLRScheduler

    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.048)
    scheduler = StepLRScheduler(
        optimizer, decay_t=2.4, decay_rate=0.97, warmup_t=5, warmup_lr_init=1e-6, warmup_prefix=False
    )
    expected = []
    for epoch in range(60):
        scheduler.step(epoch)
        expected.append(optimizer.param_groups[0]["lr"])
    schedule = ExponentialDecay(factor=0.97, every=2.4, warmup=EpochWarmup(epochs=5, start_lr=1e-6, then="goes_on"))
    assert rates(schedule, 0.048, 1, 60) == pytest.approx(expected)


def test_poly_equals_torchs():
    ours = rates(Polynomial(power=0.9, per="step"), 0.01, 5, 4)
    expected = torch_rates(lambda o: torch.optim.lr_scheduler.PolynomialLR(o, 20, 0.9), 0.01, 20)
    assert ours == pytest.approx(expected)


# ------------------------------------------------------------------------------------------------ optimizers, averages


def test_weight_decay_groups_equal_timms():
    from timm import create_model
    from timm.optim import param_groups_weight_decay

    for name in ("tiny_vit_21m_224", "vit_tiny_patch16_224", "efficientnet_b0"):
        model = create_model(name, pretrained=False, num_classes=10)
        ours = parameter_groups(model, AdamW(weight_decay=0.05, decay="matrices"))
        no_decay = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
        theirs = param_groups_weight_decay(model, 0.05, no_weight_decay_list=no_decay)
        expected = {g["weight_decay"]: {id(p) for p in g["params"]} for g in theirs}
        assert {g["weight_decay"]: {id(p) for p in g["params"]} for g in ours} == expected, name


def test_weight_decay_on_all_by_default():
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    (group,) = parameter_groups(model, Sgd(weight_decay=0.1))
    assert len(group["params"]) == 4 and group["weight_decay"] == 0.1


@pytest.mark.parametrize("optim", [Sgd(lr=0.1), AdamW(lr=0.1), RmsPropTf(lr=0.1)])
def test_optimizers_take_a_step(optim):
    model = nn.Linear(2, 1)
    before = model.weight.clone()
    optimizer = build_optimizer(model, optim, torch.device("cpu"))
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert not torch.equal(model.weight, before)


def test_average_follows_its_formula():
    model = nn.Linear(1, 1, bias=False)
    average = averaged_model(model, WeightAverage(decay=0.9, ramp=False))
    values = []
    for value in (1.0, 2.0, 4.0):
        nn.init.constant_(model.weight, value)
        average.update_parameters(model)
        values.append(average.module.weight.item())
    assert values == pytest.approx([1.0, 1.1, 1.39])


# -------------------------------------------------------------------------------------------------------- checkpoints


def text_writer(text):
    return lambda path: path.write_text(text)


def test_checkpoints_are_kept_checked_and_replaced(tmp_path):
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, {"a": text_writer(str(step)), "b": text_writer("x")}, keep=2)
    assert [path.name for path in checkpoint_folders(tmp_path)] == ["step-00000002", "step-00000003"]
    newest = newest_whole_checkpoint(tmp_path, ("a", "b"), pytest.fail)
    assert (newest / "a").read_text() == "3"
    (newest / "a").write_text("4")
    said = []
    assert newest_whole_checkpoint(tmp_path, ("a", "b"), said.append).name == "step-00000002"
    assert "a does not have its checksum" in said[0]
    (tmp_path / "step-00000002" / "b").unlink()
    with pytest.raises(RequestError, match="none of the 2 checkpoints"):
        newest_whole_checkpoint(tmp_path, ("a", "b"), said.append)
    assert "b is missing" in said[-1]
    (newest / "manifest.json").write_text("{")
    assert "manifest" in damage_of(newest)


def test_a_failed_write_leaves_the_last_good_checkpoint(tmp_path):
    save_checkpoint(tmp_path, 1, {"a": text_writer("1")}, keep=2)

    def full_disk(path):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(
        RunFailure, match=r"step 2 .*No space left.*MB are free on its disk.*last good checkpoint is .*step-00000001"
    ):
        save_checkpoint(tmp_path, 2, {"a": full_disk}, keep=2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_write_atomically_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, text_writer("old"))

    def failing(partial):
        partial.write_text("ne")
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011
        write_atomically(path, failing)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


# ----------------------------------------------------------------------------------------------------------- configs


@dataclasses.dataclass(frozen=True, kw_only=True)
class SmallConfig(RunConfig):
    optim: Optim = Sgd()
    size: tuple[int, ...] = (1, 2)


def test_config_survives_json():
    config = SmallConfig(recipe="r", optim=AdamW(lr=0.5), size=(3,), max_steps=7)
    assert from_json(SmallConfig, json.loads(json.dumps(to_json(config)))) == config
    with pytest.raises(RequestError, match="sizes"):
        from_json(SmallConfig, {**to_json(config), "sizes": 1})


def test_identity_leaves_placement_out():
    config = SmallConfig(recipe="r")
    moved = dataclasses.replace(config, num_workers=3, log_every=7, tracker="wandb", checkpoint_every=2)
    assert config_sha256(moved) == config_sha256(config)
    assert "num_workers" not in identity(config) and identity(config)["optim.lr"] == 0.1
    changed = dataclasses.replace(config, optim=Sgd(lr=0.05), mixed_precision="bf16")
    assert differences(changed, config) == [
        "mixed_precision: no there, bf16 asked for",
        "optim.lr: 0.1 there, 0.05 asked for",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": "goluu"}, "did you mean 'golu'"),
        ({"max_steps": 0}, "--max-steps"),
        ({"seed": -1}, "--seed"),
        ({"num_workers": -1}, "--num-workers"),
    ],
)
def test_impossible_values_are_refused(change, message):
    with pytest.raises(RequestError, match=message):
        checked(dataclasses.replace(SmallConfig(recipe="r"), **change))
    assert checked(SmallConfig(activation="SiLU")).activation == "swish"


def test_result_survives_and_keeps_unknown_fields(tmp_path):
    path = tmp_path / "result.json"
    write_result(path, example_result())
    assert read_result(path) == example_result()
    values = json.loads(path.read_text())
    assert values["schema"] == "golu-result/1" and "other" not in values
    assert values["sha256"]
    path.write_text(json.dumps({**values, "new": 1}))
    with pytest.raises(RequestError, match="changed or damaged"):
        read_result(path)
    write_result(path, example_result(other={"new": 1}))
    again = read_result(path)
    assert again.other == {"new": 1}
    write_result(path, again)
    assert json.loads(path.read_text())["new"] == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "holds no object"),
        ('{"schema": "other/1"}', "schema is 'other/1'"),
        ('{"schema": "golu-result/1"}', "it lacks activation"),
        ("[" * 100_000, "cannot be read"),
    ],
)
def test_what_is_no_result_is_named(tmp_path, content, message):
    path = tmp_path / "result.json"
    path.write_text(content)
    with pytest.raises(RequestError, match=message):
        read_result(path)


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        (
            "import torch, golu_core; golu_core.GoLU()(torch.ones(1, requires_grad=True)).backward()",
            ["accelerate", "cupy", "matplotlib", "sympy", "torch._dynamo", "tyro"],
        ),
        ("import golu_core.activation.names.registry", ["torch"]),
        ("import golu_vision.cli", ["torch", "accelerate", "timm", "rich"]),
    ],
)
def test_imports_stay_light(statement, absent):
    code = f"import sys; {statement}; print([m for m in {absent!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_learning_rate_is_finite_for_all_steps():
    schedule = Cosine(per="step", warmup=EpochWarmup(epochs=2))
    assert all(math.isfinite(rate) and rate >= 0 for rate in rates(schedule, 1.0, 7, 9))


def test_a_run_folder_has_one_writer(tmp_path):
    lock = claim(tmp_path / "seed0")
    with pytest.raises(RequestError, match="another process is training in"):
        claim(tmp_path / "seed0", patience_s=0.1)
    claim(tmp_path / "seed1").release()
    lock.release()
    claim(tmp_path / "seed0", patience_s=0.1).release()


# what torch raises where a loader process was killed, some of it without a word
DEAD_LOADERS = [
    EOFError(),
    ConnectionResetError(104, "Connection reset by peer"),
    ConnectionRefusedError(),
    FileNotFoundError(2, "No such file or directory"),
    RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed.\nmore"),
]


class DyingLoader:
    """A loader that begins, and whose first batch then fails."""

    num_workers = 2

    def __init__(self, error):
        self.error = error

    def __iter__(self):
        yield from self._batches()

    def _batches(self):
        raise self.error


@pytest.mark.parametrize("error", DEAD_LOADERS, ids=lambda error: type(error).__name__)
def test_a_killed_loader_is_one_message_whatever_torch_raises(error):
    with pytest.raises(RunFailure, match="a loader process was killed, perhaps because memory ran out") as failure:
        list(loaded(DyingLoader(error)))
    assert "\n" not in str(failure.value)


def test_a_cpu_that_was_asked_for_is_taken_on_a_machine_with_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    assert default_device() == torch.device("cuda")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert default_device() == torch.device("cpu")
