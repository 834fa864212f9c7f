"""A run's output while it trains: metrics.jsonl, the tracker, the progress bar, and timings."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from golu_core.activation.names.specs import folder_name

from ..config.identity import config_sha256
from ..config.run_config import RunConfig
from ..distributed.processes import Processes
from ..figures.curves import read_metrics
from ..messages.errors import RunFailure
from ..messages.progress import TrainingProgress
from ..runs.run_files import METRICS_FILE, append_metrics
from ..storage.ownership import remove_file
from .state import Position
from .watch import StepValues

_PLACES = ("step", "epoch", "split", "seconds")


class RunLog:
    """The metrics, the tracker and the clock of a run.

    Args:
        config: The run's configuration, with the logging interval and the tracker.
        processes: The processes of the run; only the main one writes.
        folder: The run folder.
        unit: The unit of throughput, such as images.
        units_per_step: The number of units in an optimizer step.
    """

    def __init__(self, config: RunConfig, processes: Processes, folder: Path, unit: str, units_per_step: float) -> None:
        self.config = config
        self.processes = processes
        self.folder = folder
        self.unit = unit
        self.units_per_step = units_per_step
        self.position = Position()
        self._steps_per_pass: float | None = None
        self._progress: TrainingProgress | None = None
        self._clock = time.perf_counter()

    def start(
        self,
        position: Position,
        total_steps: int,
        task: str,
        steps_per_pass: float | None,
        units_per_step: float | None,
    ) -> None:
        """Open the progress bar and the tracker, and start the clock.

        Args:
            position: The run's position, which also accumulates times and loss sums.
            total_steps: The number of optimizer steps in the whole run.
            task: The task's name; the tracker's project is named after it.
            steps_per_pass: The steps in one pass over the data, if epochs are counted in fractions.
            units_per_step: The average number of units per step, if it cannot be computed from the config.
        """
        self.units_per_step = self.units_per_step if units_per_step is None else units_per_step
        self.position, self._steps_per_pass = position, steps_per_pass
        self._progress = TrainingProgress(total_steps, self.unit, enabled=self.processes.is_main)
        self.processes.say_through(self._progress.say)
        if self.config.tracker != "none":
            self._start_tracker(task)
        self.skip_time()

    def _start_tracker(self, task: str) -> None:
        config = self.config
        name = f"{config.recipe}-{folder_name(config.activation)}-seed{config.seed}"
        identifier = config_sha256(config)[:16]  # a continued run keeps its id
        if config.tracker == "tensorboard" and self.processes.is_main:
            for events in (self.folder / f"golu-{task}").glob("*events.out.tfevents*"):
                remove_file(events)
        options = {"name": name, "id": identifier, "resume": "allow"}
        self.processes.accelerator.init_trackers(
            f"golu-{task}", init_kwargs={"wandb": options} if config.tracker == "wandb" else {}
        )

        if config.tracker == "tensorboard" and self.processes.is_main:
            self._track_again()

    def _track_again(self) -> None:
        """Write the steps in metrics.jsonl, which end where the run resumes, to TensorBoard.

        The event files of a killed run may contain later steps, and TensorBoard would show those twice.
        """
        path = self.folder / METRICS_FILE
        now = time.time() - self._seconds
        for line in read_metrics(path) if path.exists() else ():
            values = {name: value for name, value in line.items() if name not in _PLACES}
            self._track(line["step"], line["split"], values, walltime=now + line.get("seconds", 0.0))

    def close(self) -> None:
        """Close the progress bar and restore the terminal."""
        if self._progress is not None:
            self._progress.close()

    # --------------------------------------------------------------------------------------------------------- values

    def is_logged(self, step: int) -> bool:
        """Whether a line is added to metrics.jsonl after a step, counted from 1."""
        return step % self.config.log_every == 0

    def step(self, values: StepValues) -> None:
        """Log an optimizer step."""
        position = self.position
        position.loss_sum += values.loss
        position.loss_count += 1
        self.charge("train")
        if self._progress is not None:
            self._progress.step(values.step, self._epoch_shown(values.step), values.loss, values.lr, self.throughput)
        if self.is_logged(values.step):
            mean = position.loss_sum / position.loss_count
            norms = {name: norm if math.isfinite(norm) else None for name, norm in values.norms.items()}
            self._write(values.step, "train", {"loss": mean, "lr": values.lr, **norms})
            position.loss_sum, position.loss_count = 0.0, 0

    def test(self, metrics: Mapping[str, float], learned: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
        """Log the current model's test metrics and its activations' learned parameters, if any."""
        self.charge("eval")
        step = self.position.step
        parameters = [found for of_network in learned.values() for found in of_network.items()]
        flat = {f"{name}_{of}": value for name, found in parameters for of, value in found.items()}
        self._write(step, "test", {**metrics, **flat})
        if self._progress is not None:
            self._progress.metrics(self._epoch_shown(step), step, self.config.holdout, dict(metrics))

    def given(self, split: str, activation: str, values: Mapping[str, float]) -> None:
        """Log the network's metrics before training: split `given`, or `swapped` once its activation is replaced."""
        self.charge("eval")
        self._write(0, split, {"activation": activation, **values})

    def _write(self, step: int, split: str, values: Mapping[str, float | str | None]) -> None:
        if self.processes.is_main:
            places = {"step": step, "epoch": self._epoch_reached(step), "split": split, "seconds": self._seconds}
            line = {**places, **values}
            try:
                append_metrics(self.folder, line)
            except OSError as error:
                raise RunFailure(f"metrics.jsonl could not be written at step {step}: {error}") from error
        if self.config.tracker != "none":
            self._track(step, split, values)

    def _track(self, step: int, split: str, values: Mapping[str, float | str | None], **options: float) -> None:
        """Pass numbers to the tracker; `options` are for TensorBoard only."""
        numbers = {f"{split}/{name}": value for name, value in values.items() if isinstance(value, (int, float))}
        self.processes.accelerator.log(numbers, step=step, log_kwargs={"tensorboard": options})

    @property
    def _seconds(self) -> float:
        return round(self.position.train_seconds + self.position.eval_seconds, 3)

    def _epoch_reached(self, step: int) -> float:
        """The epoch of a step, counted from 0, or the number of passes over the data completed after it."""
        if self._steps_per_pass is None:
            return self.position.epoch_of_last_step
        return round(step / self._steps_per_pass, 4)

    def _epoch_shown(self, step: int) -> str:
        epoch = self._epoch_reached(step)
        return f"{epoch + 1}" if self._steps_per_pass is None else f"{epoch:.3g}"

    # ---------------------------------------------------------------------------------------------------------- times

    @property
    def throughput(self) -> float:
        """Units per second so far, summed over all processes, excluding evaluation time."""
        return self.position.step * self.units_per_step / max(self.position.train_seconds, 1e-9)

    def charge(self, account: Literal["train", "eval"]) -> None:
        """Count the time since the last call as training or evaluation."""
        now = time.perf_counter()
        if account == "train":
            self.position.train_seconds += now - self._clock
        else:
            self.position.eval_seconds += now - self._clock
        self._clock = now

    def skip_time(self) -> None:
        """Exclude the time since the last call from both accounts, such as the time to write a checkpoint."""
        self._clock = time.perf_counter()
