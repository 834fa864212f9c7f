"""`Run`: one training run, from its folder to its result. Each task's `train.py` calls it; it calls nobody back."""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic

import torch
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from .checkpoint import checkpoint_folders, save_checkpoint
from .config import Config, config_sha256
from .data import BatchPlan, TrainBatches, loaded, plan_batches
from .devices import build_accelerator
from .errors import Interrupted, RequestError, RunFailure
from .fingerprint import Fingerprint, file_digest
from .folder import (
    AVERAGE_FILE,
    METRICS_FILE,
    WEIGHTS_FILE,
    RunFolder,
    RunIdentity,
    append_metrics,
    run_folder,
)
from .locks import FolderLock, claim
from .optim import WeightAverage, averaged_model
from .ownership import RUN_MARKER, write_atomically
from .plots import read_metrics, save_curves
from .progress import TrainingProgress
from .provenance import environment
from .results import RESULT_FILE, PrimaryMetric, Result, SwappedActivations, Throughput, write_result
from .seeding import seed_global_generators
from .signals import StopSignal
from .state import Position, TrainingState, weights_writer


@dataclass
class _StepOutcome:
    """Mean loss and stop request of one step, on their way from the device."""

    step: int
    lr: float
    values: Tensor
    ready: torch.cuda.Event | None


class Run(Generic[Config]):
    """One training run: devices and processes, folder, continuation, signals, metrics, checkpoints, result.

    Args:
        config: the whole config.
        task: `vision`, `lm`, `detect` or `diffusion`.
        unit: what throughput counts.
        units_per_sample: how many of them a sample has.
        primary: name of the primary metric, and whether higher is better.
        outputs: patterns of the files that the task itself writes into the run's folder, such as `samples/*.png`.
        folder: of a finished run to evaluate; by default the place that follows from the config.

    Raises:
        RequestError: the run folder belongs to another config, or the launcher's processes do not see each other.
    """

    def __init__(
        self,
        config: Config,
        task: str,
        *,
        unit: str,
        primary: tuple[str, bool],
        units_per_sample: int = 1,
        outputs: Sequence[str] = (),
        folder: Path | None = None,
    ) -> None:
        self.config = config
        self.task = task
        self.unit = unit
        self.units_per_sample = units_per_sample
        self.primary_name, self.higher_is_better = primary
        self.folder = folder or run_folder(config, task)
        self.accelerator = build_accelerator(config, self.folder)
        self.position = Position()
        self.average: AveragedModel | None = None
        self._average_settings: WeightAverage | None = None
        self._model: nn.Module | None = None
        self._optimizer: Any = None
        self._plan = BatchPlan(1, 1, 1, 1)
        self._total_steps = 0
        self._steps_per_pass: float | None = None
        self._last_micro = True
        self._micro_losses: list[Tensor] = []
        self._pending: list[_StepOutcome] = []
        self._stop_agreed = False
        self._signal = StopSignal(announce=self.is_main)
        self._clock = time.perf_counter()
        self._progress: TrainingProgress | None = None
        self._lock: FolderLock | None = None
        self._place = RunFolder(self.folder, outputs)
        self._identity: RunIdentity | None = None
        if folder is None:
            self._place.check_owner(config)

    # ------------------------------------------------------------------------------------------ devices and processes

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return self.accelerator.device

    @property
    def world_size(self) -> int:
        """How many processes train together."""
        return self.accelerator.num_processes

    @property
    def rank(self) -> int:
        """Which of them this is."""
        return self.accelerator.process_index

    @property
    def is_main(self) -> bool:
        """Whether this process writes."""
        return self.accelerator.is_main_process

    def say(self, message: str) -> None:
        """Prints a line, on the main process only."""
        if self._progress is not None:
            self._progress.say(message)
        elif self.is_main:
            print(message, flush=True)

    def warn(self, message: str) -> None:
        """Prints a warning on standard error, on the main process only."""
        if self.is_main:
            print(f"warning: {message}", file=sys.stderr, flush=True)

    @property
    def _checkpoints(self) -> Path:
        return self._place.checkpoints

    def plan_batches(self, global_size: int, max_device_size: int | None) -> BatchPlan:
        """Splits the global batch among the processes; RequestError if it does not divide."""
        self._plan = plan_batches(global_size, self.world_size, max_device_size)
        return self._plan

    def with_common_batch_norm(self, model: nn.Module) -> nn.Module:
        """The model with one batch norm over all processes, so that their number does not change what it computes."""
        if self.world_size == 1 or not any(isinstance(module, _BatchNorm) for module in model.modules()):
            return model
        if self.device.type == "cuda":
            common: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)
            return common
        self.warn("batch norm sees each process's images by themselves: torch has no common one without CUDA")
        return model

    def reduce_sum(self, values: Tensor) -> Tensor:
        """The elementwise sum of a small tensor over all processes."""
        reduced: Tensor = self.accelerator.reduce(values, reduction="sum")
        return reduced

    # --------------------------------------------------------------------------------------------- begin and continue

    def __enter__(self) -> Run[Config]:
        self._signal.install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.close()
        self._signal.restore()
        if self._lock is not None:
            self._lock.release()
        if error is None or isinstance(error, Interrupted):  # a process that failed must not wait for the others
            self.accelerator.end_training()

    def already_finished(self) -> bool:
        """Says so if the run that lies there is finished, and may stay.

        A finished run whose files are damaged is none: that is said, and the run completed from its last checkpoint.
        """
        if self.config.dry_run or self.config.overwrite:
            return False
        found: list[Any] = [self._place.finished(self.warn) if self.is_main else None]
        self._broadcast(found)
        if found[0] is None:
            return False
        metric = found[0].primary_metric
        self.say(f"finished already: {metric.name} {metric.value:.5g}, in {self.folder}")
        return True

    def _broadcast(self, values: list[Any]) -> None:
        """Gives the main process's values to all."""
        if self.world_size > 1:
            torch.distributed.broadcast_object_list(values)

    def prepare(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        total_steps: int,
        inputs: Mapping[str, Fingerprint],
        average: WeightAverage | None = None,
        steps_per_pass: float | None = None,
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Takes the run folder, puts model and optimizer on their device, and restores the newest whole checkpoint.

        Nothing is written before this call.

        Args:
            model, optimizer: as built, on the CPU or already on the device.
            total_steps: optimizer steps of the whole run.
            inputs: what the run reads: `data`, and whatever else decides its numbers.
            average: keep a moving average of the weights.
            steps_per_pass: steps that are as many samples as the data has, where the loop's epochs are not passes over
                the data but stretches between two evaluations; metrics then count epochs in fractions.

        Returns:
            Both, prepared by Accelerate.

        Raises:
            RequestError: a moving average is asked for, and the launcher shards the model.
        """
        self._total_steps, self._steps_per_pass = total_steps, steps_per_pass
        if average is not None and self.accelerator.distributed_type == DistributedType.FSDP:
            raise RequestError("a moving average of sharded weights is not supported: launch without FSDP")
        checkpoint = self._take_folder(inputs)
        if average is not None:
            self.average = averaged_model(model.to(self.device), average)
            self._average_settings = average
        if self.config.compile:
            model.compile()
        self._model, self._optimizer = self.accelerator.prepare(model, optimizer)
        if checkpoint is not None:
            self.position = self._state().restore(checkpoint)
        self._signal.armed = True
        self._progress = TrainingProgress(total_steps, self.unit, enabled=self.is_main)
        if checkpoint is not None:
            self.say(f"continuing {self.folder} after step {self.position.step} of {total_steps}")
        self._start_tracker()
        self._clock = time.perf_counter()
        return self._model, self._optimizer

    def _take_folder(self, inputs: Mapping[str, Fingerprint]) -> Path | None:
        """Takes the run folder and finds the checkpoint to continue from, the same on all processes."""
        self.accelerator.wait_for_everyone()
        found: list[Any] = [None, None]
        if self.is_main:
            try:
                identity = self._identified(inputs)
                self._lock = claim(self.folder)
                found = [self._place.take(identity, self.warn), identity]
            except (RequestError, RunFailure) as error:
                found = [error, None]
            except OSError as error:
                found = [RunFailure(f"the run folder {self.folder} cannot be written: {error}"), None]
        self._broadcast(found)
        if isinstance(found[0], Exception):
            raise found[0]
        checkpoint: Path | None = found[0]
        self._identity = found[1]
        return checkpoint

    def _identified(self, inputs: Mapping[str, Fingerprint]) -> RunIdentity:
        texts = {name: fingerprint.text for name, fingerprint in inputs.items()}
        if self.config.check_data:
            texts |= {f"{name}_whole": found.whole_text for name, found in inputs.items() if found.whole is not None}
        return RunIdentity(self.config, texts, environment(self._device_name(), self.task))

    def _checkpoint_writers(self) -> dict[str, Callable[[Path], None]]:
        """The state, and what the checkpoint must know by itself: whose it is, and the metrics so far."""
        assert self._identity is not None
        marker = json.dumps(self._identity.to_json(), indent=1)
        return {
            **self._state().writers(self.position),
            RUN_MARKER: lambda path: _write_bytes(path, marker.encode()),
            METRICS_FILE: lambda path: _write_bytes(path, self._metrics_so_far()),
        }

    def _metrics_so_far(self) -> bytes:
        path = self.folder / METRICS_FILE
        return path.read_bytes() if path.exists() else b""

    def _state(self) -> TrainingState:
        return TrainingState(self._bare_model(), self._optimizer.optimizer, self.average, self.accelerator.scaler)

    def _start_tracker(self) -> None:
        if self.config.tracker == "none":
            return
        name = f"{self.config.recipe}-{self.config.activation}-seed{self.config.seed}"
        identifier = config_sha256(self.config)[:16]  # so that a continued run goes on under its own id
        options = (
            {"wandb": {"name": name, "id": identifier, "resume": "allow"}} if self.config.tracker == "wandb" else {}
        )
        self.accelerator.init_trackers(f"golu-{self.task}", init_kwargs=options)

    def _bare_model(self) -> nn.Module:
        bare: nn.Module = self.accelerator.unwrap_model(self._model, keep_torch_compile=False)
        return bare

    @property
    def evaluated_model(self) -> nn.Module:
        """What the test metrics are of: the moving average where the recipe says so, else the model."""
        if self.average is not None and self._average_settings is not None and self._average_settings.evaluate:
            averaged: nn.Module = self.average.module
            return averaged
        return self._bare_model()

    # ---------------------------------------------------------------------------------------------------- the loop

    def epochs(self) -> Iterator[int]:
        """Epochs from where the run stands to its end, with a checkpoint after each."""
        while self.position.step < self._total_steps:
            yield self.position.epoch
            self.position.epoch += 1
            self.position.step_in_epoch = 0
            self._save_checkpoint()
            self._stop_if_asked()

    @property
    def is_last_epoch(self) -> bool:
        """Whether the steps of this run are all done; for use after an epoch's batches."""
        return self.position.step >= self._total_steps

    def batches(self, loader: DataLoader[Any], epoch: int) -> Iterator[Any]:
        """This process's batches of an epoch from where the run stands, each followed by a call of `step`.

        Between optimizer steps gradients are not synchronised. Each batch finds the global random generators seeded by
        (seed, step, piece, process), so that dropout is the same after a continuation.
        """
        sampler: TrainBatches = loader.batch_sampler  # type: ignore[assignment]
        sampler.epoch, sampler.first_step = epoch, self.position.step_in_epoch
        pieces = self._plan.accumulation
        for number, batch in enumerate(loaded(loader)):
            if self.position.step >= self._total_steps:
                return
            piece = number % pieces
            self._last_micro = piece == pieces - 1
            seed_global_generators(self.config.seed, "step", self.position.step, piece, self.rank)
            with nullcontext() if self._last_micro else self.accelerator.no_sync(self._model):
                yield batch
            if self._last_micro:
                every = self.config.checkpoint_every
                at_end = self.position.step_in_epoch == sampler.order.steps_per_epoch
                if every and self.position.step % every == 0 and not at_end:
                    self._save_checkpoint()
                self._stop_if_asked()
        self._settle(keep=0)

    def step(self, loss: Tensor, schedule: Callable[[int], float], clip: float | None = None) -> None:
        """Takes one piece's mean loss: backward, and with the step's last piece the optimizer's step.

        Args:
            loss: scalar, the mean over the piece's samples.
            schedule: learning rate of an optimizer step, counted from 0; a group's `lr_scale` multiplies it.
            clip: largest norm of the gradient.

        Raises:
            RunFailure: the loss of this step or, on a GPU, of the one before was not finite.
        """
        self.accelerator.backward(loss / self._plan.accumulation)
        self._micro_losses.append(loss.detach())
        if not self._last_micro:
            return
        lr = schedule(self.position.step)
        for group in self._optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        if clip is not None:
            assert self._model is not None
            self.accelerator.clip_grad_norm_(self._model.parameters(), clip)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.position.step += 1
        self.position.step_in_epoch += 1
        self._update_average()
        self._watch(lr)

    def _update_average(self) -> None:
        settings = self._average_settings
        if self.average is None or settings is None or self.position.step % settings.every:
            return
        if self.position.epoch < settings.copy_epochs:
            self.average.n_averaged.zero_()
        self.average.update_parameters(self._bare_model())

    def _watch(self, lr: float) -> None:
        """Sends this step's loss and stop request on their way, and looks at those that have arrived."""
        loss = torch.stack(self._micro_losses).mean().float()
        self._micro_losses.clear()
        values = torch.stack([loss, torch.full_like(loss, float(self._signal.number is not None))])
        if self.world_size > 1:
            values = self.reduce_sum(values) / self.world_size
        ready = None
        if self.device.type == "cuda":  # reading at once would make the device wait for the host in every step
            values = values.to("cpu", non_blocking=True)
            ready = torch.cuda.Event()
            ready.record()
        self._pending.append(_StepOutcome(self.position.step, lr, values, ready))
        self._settle(keep=1 if ready is not None else 0)

    def _settle(self, keep: int) -> None:
        while len(self._pending) > keep:
            outcome = self._pending.pop(0)
            if outcome.ready is not None:
                outcome.ready.synchronize()
            loss, stop = outcome.values.tolist()
            if loss != loss or loss in (float("inf"), float("-inf")):
                self._fail_on_loss(loss, outcome)
            self._stop_agreed = self._stop_agreed or stop > 0
            self._log_step(outcome, loss)

    def _fail_on_loss(self, loss: float, outcome: _StepOutcome) -> None:
        good = checkpoint_folders(self._checkpoints)
        last = f"the last good checkpoint is {good[-1]}" if good else "there is no checkpoint before it"
        raise RunFailure(f"the loss of step {outcome.step} is {loss} at learning rate {outcome.lr:g}; {last}")

    def _log_step(self, outcome: _StepOutcome, loss: float) -> None:
        position = self.position
        position.loss_sum += loss
        position.loss_count += 1
        self._advance_clock("train_seconds")
        if self._progress is not None:
            self._progress.step(outcome.step, self._epoch_shown(outcome.step), loss, self.throughput)
        if outcome.step % self.config.log_every == 0:
            self._write_metrics(
                outcome.step, "train", {"loss": position.loss_sum / position.loss_count, "lr": outcome.lr}
            )
            position.loss_sum, position.loss_count = 0.0, 0

    def _epoch_reached(self, step: int) -> float:
        """The epoch to which a step belongs, counted from 0, or the passes over the data that it ends."""
        if self._steps_per_pass is None:
            return self.position.epoch_of_last_step
        return round(step / self._steps_per_pass, 4)

    def _epoch_shown(self, step: int) -> str:
        epoch = self._epoch_reached(step)
        return f"{epoch + 1}" if self._steps_per_pass is None else f"{epoch:.3g}"

    @property
    def throughput(self) -> float:
        """Units a second so far, over all processes, without the time of evaluation."""
        samples = self.position.step * self._plan.global_size
        return samples * self.units_per_sample / max(self.position.train_seconds, 1e-9)

    def evaluation_batches(self, loader: DataLoader[Any]) -> Iterator[Any]:
        """This process's batches of a test set; a stop request is honoured between them."""
        self._settle(keep=0)
        self._advance_clock("train_seconds")
        for batch in loaded(loader):
            yield batch
            self._stop_if_asked(inside_evaluation=True)

    def report(self, metrics: dict[str, float]) -> None:
        """Notes the test metrics of the model as it is."""
        self._settle(keep=0)
        self._advance_clock("eval_seconds")
        value, best = metrics[self.primary_name], self.position.best.get(self.primary_name)
        if best is None or (value > best if self.higher_is_better else value < best):
            self.position.best = {**metrics, "step": self.position.step}
        self._write_metrics(self.position.step, "test", metrics)
        if self._progress is not None:
            self._progress.metrics(self._epoch_shown(self.position.step), self.position.step, metrics)

    def _write_metrics(self, step: int, split: str, values: dict[str, float]) -> None:
        if self.is_main:
            seconds = round(self.position.train_seconds + self.position.eval_seconds, 3)
            line = {
                "step": step,
                "epoch": self._epoch_reached(step),
                "split": split,
                "seconds": seconds,
                **values,
            }
            try:
                append_metrics(self.folder, line)
            except OSError as error:
                raise RunFailure(f"metrics.jsonl could not be written at step {step}: {error}") from error
        if self.config.tracker != "none":
            self.accelerator.log({f"{split}/{name}": value for name, value in values.items()}, step=step)

    def _advance_clock(self, account: str) -> None:
        now = time.perf_counter()
        setattr(self.position, account, getattr(self.position, account) + now - self._clock)
        self._clock = now

    # ------------------------------------------------------------------------------------------- checkpoints and stops

    def _save_checkpoint(self) -> None:
        self._settle(keep=0)
        failure: list[Any] = [None]
        files = self._checkpoint_writers()
        if self.is_main:
            try:
                save_checkpoint(self._checkpoints, self.position.step, files, self.config.keep_checkpoints)
            except RunFailure as error:
                failure = [error]
        self._broadcast(failure)
        if failure[0] is not None:
            raise failure[0]
        self._clock = time.perf_counter()

    def _stop_if_asked(self, inside_evaluation: bool = False) -> None:
        """Saves and raises Interrupted once all processes know of a signal to any of them."""
        asked = self._signal.number is not None
        if self.world_size > 1:
            if inside_evaluation:
                asked = bool(self.reduce_sum(torch.tensor(float(asked), device=self.device)) > 0)
            else:
                asked = self._stop_agreed
        if not asked:
            return
        self._save_checkpoint()
        number = self._signal.number or signal.SIGTERM
        raise Interrupted(
            number,
            f"stopped after step {self.position.step} of {self._total_steps}; the same command continues the run",
        )

    # ------------------------------------------------------------------------------------------------------- finish

    def finish(
        self,
        metrics: dict[str, float],
        *,
        dataset: str,
        model_name: str,
        data: dict[str, Any],
        swapped: SwappedActivations,
        other: dict[str, Any] | None = None,
        files: Sequence[str] = (),
    ) -> Result:
        """Writes weights, curves and result.json, in this order, and returns the result.

        Args:
            metrics: of the final weights.
            dataset, model_name: for tables.
            data: what the task says of the data; the fingerprints are added.
            swapped: what became of the activations.
            other: further fields of result.json.
            files: of the run's folder, written by the task, without which the run cannot be used.
        """
        primary = PrimaryMetric(self.primary_name, metrics[self.primary_name], self.higher_is_better)
        bare = self._bare_model()
        assert self._identity is not None
        data = {**data, **_fingerprints(self._identity.inputs)}
        result = Result(
            task=self.task,
            recipe=self.config.recipe,
            dataset=dataset,
            model=model_name,
            activation=self.config.activation,
            seed=self.config.seed,
            primary_metric=primary,
            metrics=metrics,
            best=self.position.best,
            parameters=sum(p.numel() for p in bare.parameters()),
            steps=self.position.step,
            train_seconds=round(self.position.train_seconds, 3),
            eval_seconds=round(self.position.eval_seconds, 3),
            throughput=Throughput(self.unit, round(self.throughput, 2)),
            world_size=self.world_size,
            data=data,
            environment=environment(self._device_name(), self.task),
            config_sha256=config_sha256(self.config),
            activations=swapped,
            other=other or {},
        )
        write_weights = weights_writer(bare)
        if self.is_main:
            try:
                result = self._write_result(result, write_weights, files)
            except OSError as error:
                raise RunFailure(f"the result could not be written: {error}") from error
            self.say(f"finished: {self.primary_name} {primary.value:.5g}; everything lies in {self.folder}")
        self.accelerator.wait_for_everyone()
        return result

    def _write_result(self, result: Result, write_weights: Callable[[Path], None], others: Sequence[str]) -> Result:
        write_atomically(self.folder / WEIGHTS_FILE, write_weights)
        named = [WEIGHTS_FILE, METRICS_FILE, *others]
        if self.average is not None:
            write_atomically(self.folder / AVERAGE_FILE, weights_writer(self.average.module))
            named.append(AVERAGE_FILE)
        title = f"{result.recipe}  {result.activation}  seed {result.seed}"
        save_curves(self.folder / "curves.png", read_metrics(self.folder / METRICS_FILE), self.primary_name, title)
        result = dataclasses.replace(result, files={name: file_digest(self.folder / name) for name in named})
        write_result(self.folder / RESULT_FILE, result)
        return result

    def amend(self, result: Result, metrics: Mapping[str, float]) -> None:
        """Adds metrics to a result that is written already."""
        if self.is_main:
            amended = dataclasses.replace(result, metrics={**result.metrics, **metrics})
            write_result(self.folder / RESULT_FILE, amended)

    def _device_name(self) -> str:
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type


def _fingerprints(inputs: Mapping[str, str]) -> dict[str, Any]:
    """What result.json says of a run's inputs: of the data, of all their content if it was read, and of the others."""
    found: dict[str, Any] = {"fingerprint": inputs["data"]}
    whole = {name: text for name, text in inputs.items() if name.endswith("_whole")}
    others = {name: text for name, text in inputs.items() if name != "data" and name not in whole}
    if others:
        found["inputs"] = others
    return found | ({"content": whole} if whole else {})


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)
