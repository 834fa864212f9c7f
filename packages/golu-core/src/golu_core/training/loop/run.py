"""`Run`: one training run, from its folder to its result. Each task's `train.py` calls it; it calls nobody back.

In order:

1. `already_finished` ends the command where the run folder holds its result.
2. `load` reads the data.
3. `prepare` checks everything, opens the run folder and prints the opening block. A dry run ends here.
4. `epochs` and `micro_batches` yield what to train on, `backward` takes its losses, `report` the epoch's test metrics.
5. `finish` writes the weights and result.json, then curves and extras.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..config.identity import config_sha256
from ..config.optim import Average
from ..config.run_config import Config, limited_steps, require_tracker
from ..data.loading import TrainingLoader
from ..data.orders import BatchDataset, BatchPlan, SampleOrder, plan_batches
from ..distributed.signals import StopSignal
from ..messages.errors import Interrupted, RequestError, RunFailure
from ..runs.checkpoint import last_good_checkpoint
from ..runs.folder import RunFolder
from ..runs.provenance import environment
from ..runs.results import PrimaryMetric, Result, SwappedActivations, Throughput
from ..runs.run_files import CURVES_FILE, RunIdentity, run_folder
from ..storage.fingerprint import Fingerprint
from ..tasks.opening import Opening, opening_lines, shown_line
from ..tasks.task import Task
from .evaluation import Evaluation
from .extras import Extras
from .learner import Learner
from .log import RunLog
from .state import Position
from .steps import MicroBatch, NotFinite, Steps

Loaded = TypeVar("Loaded")


class _DryRunEnds(Exception):
    """A dry run has printed its opening block; nothing was written."""


class Run(Evaluation[Config]):
    """One training run: folder, continuation, signals, steps, metrics, checkpoints, result.

    Args:
        config: The full configuration.
        task: The task that it belongs to.

    Raises:
        RequestError: The run folder belongs to another config, or the launcher's processes do not see each other.

    Examples:
        >>> import tempfile, torch
        >>> from pathlib import Path
        >>> from golu_core.training import EpochConfig, EpochOrder, Metric, Run, Task
        >>> from golu_core.training import build_optimizer, tensors_fingerprint
        >>> class Points:
        ...     x, in_memory = torch.arange(8.0)[:, None], True
        ...     def __len__(self):
        ...         return len(self.x)
        ...     def __getitems__(self, keys):
        ...         return self.x[[key.sample for key in keys]]
        >>> folder, points, model = tempfile.TemporaryDirectory(), Points(), torch.nn.Linear(1, 1)
        >>> config = EpochConfig(recipe="line", epochs=2, batch_size=4, output_dir=Path(folder.name))
        >>> metrics = {"loss": Metric("loss", 5, higher_is_better=False)}
        >>> task = Task("tiny", "Lines", "tiny", {"line": config}, metrics, "points/s", train="", evaluate="")
        >>> with Run(config, task) as run:
        ...     optimizer, order = build_optimizer(model, config.optim, run.device), EpochOrder(8, 4, config.seed)
        ...     inputs = {"data": tensors_fingerprint({"x": points.x})}
        ...     model = run.prepare(model, optimizer, points, order, inputs=inputs)
        ...     for epoch in run.epochs():
        ...         for micro_batch in run.micro_batches():
        ...             run.backward(micro_batch, (model(micro_batch.batch) - 2 * micro_batch.batch).square().mean())
        >>> run.position.step, run.is_complete, sorted(path.name for path in run.folder.glob("*.json*"))
        (4, True, ['config.json', 'run.json'])
        >>> folder.cleanup()
    """

    def __init__(self, config: Config, task: Task[Config]) -> None:
        require_tracker(config)
        super().__init__(config, run_folder(config, task.name))
        self.task = task
        self.position = Position()
        self.log = RunLog(config, self.processes, self.folder, task.unit, config.batch_size * config.units_per_sample)
        self._signal = StopSignal(announce=self.is_main)
        self._place = RunFolder(self.folder, task.outputs)
        self._place.check_owner(config)
        self._missing: RequestError | None = None
        self._extras = Extras(self.processes.warn)

    @cached_property
    def plan(self) -> BatchPlan:
        """How the batch is split among the processes; RequestError if it does not divide."""
        return plan_batches(self.config.batch_size, self.processes.count, self.config.micro_batch_size)

    # --------------------------------------------------------------------------------------------- begin and continue

    def __enter__(self) -> Run[Config]:
        self._signal.install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.log.close()
        self._signal.restore()
        self._place.close()
        dry_run_ends = isinstance(error, _DryRunEnds)
        # a process that failed must not wait for the others
        if error is None or dry_run_ends or isinstance(error, Interrupted):
            self.processes.end()
        return dry_run_ends

    def report_if_finished(self) -> bool:
        """Says so if the run that lies there is finished, and may stay.

        A finished run whose files are damaged is none: that is said, and the run completed from its last checkpoint.
        """
        if self.config.overwrite:
            return False
        found = self.processes.broadcast(lambda: self._place.finished(self.config, self.processes.warn))
        if found is None:
            return False
        metric = found.primary_metric
        self.processes.say(f"finished already: {metric.name} {metric.value:.5g}, in {self.folder}")
        return True

    def load(self, load: Callable[[], Loaded], stand_in: Callable[[], Loaded] | None = None) -> Loaded:
        """Load the data. A dry run without the published data goes on with a stand-in that has their sizes.

        Args:
            load: Loads them.
            stand_in: Makes something of their sizes, to be described and not read; None where a recipe has no
                published sizes, or the data are the user's.

        Raises:
            RequestError: The data are missing or malformed. A dry run that goes on raises it in `prepare`.
        """
        try:
            return load()
        except RequestError as error:
            config = self.config
            if not config.dry_run or stand_in is None or config.check_data or config.init_from is not None:
                raise
            self._missing = error
            return stand_in()

    def prepare(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        dataset: BatchDataset,
        order: SampleOrder,
        *,
        inputs: Mapping[str, Fingerprint],
        opening: Opening | None = None,
        average: Average | None = None,
        steps_per_pass: float | None = None,
        units_per_step: float | None = None,
    ) -> nn.Module:
        """Open the run folder, move model and optimizer to their device, and restore the newest whole checkpoint.

        Nothing is written before this call, and a dry run ends in it.

        Args:
            model, optimizer: As built, on the CPU or already on the device.
            dataset, order: The training set, and the order of its samples.
            inputs: Fingerprints of what the run reads: `data`, and whatever else decides its numbers.
            opening: What the task prints before the first step; None prints nothing.
            average: Keep an average of the weights.
            steps_per_pass: Steps that train on as many samples as the data has, where the loop's epochs are not passes
                over the data but the steps between two evaluations; metrics then count epochs in fractions.
            units_per_step: How many of the throughput's units a step has on average, where the config cannot know.

        Returns:
            The model to call in training.

        Raises:
            RequestError: The folder holds another run, an average of a sharded model is requested, or the data are
                missing.
        """
        self._learner = Learner(self.processes, model, optimizer, average, self.config.compile)
        self.processes.wait_for_all()
        length = self.config.length(order.steps_per_epoch)
        total = limited_steps(self.config, length.steps)
        checkpoint, self._identity = self.processes.broadcast(lambda: self._opened(inputs))
        if checkpoint is not None:
            self.position = self._learner.state.restore(checkpoint)
        if opening is not None:
            self._print_opening(opening, checkpoint, total)
        if self._missing is not None:
            raise self._missing
        if self.config.dry_run:
            raise _DryRunEnds
        self._signal.armed = True
        self.log.start(self.position, total, self.task.name, steps_per_pass, units_per_step)
        if checkpoint is not None:
            self.processes.say(f"continuing {self.folder} after step {self.position.step} of {total}")
        loader = TrainingLoader(dataset, order, self.plan, self.processes.rank, self.config.num_workers)
        self._steps = Steps(
            self.config, length, total, self.processes, self._learner, loader, self.position, self.log, self._signal
        )
        return self._learner.model

    def _opened(self, inputs: Mapping[str, Fingerprint]) -> tuple[Path | None, RunIdentity | None]:
        """The checkpoint to continue from, if there is one, and the run's identity; a dry run only looks."""
        if self._missing is not None:
            return None, None
        texts = {name: fingerprint.text for name, fingerprint in inputs.items()}
        if self.config.check_data:
            texts |= {f"{name}_whole": found.whole_text for name, found in inputs.items() if found.whole is not None}
        identity = RunIdentity(self.config, texts, environment(self.processes.device_name, self.task.program))
        look = self._place.check if self.config.dry_run else self._place.open
        return look(identity, self.processes.warn), identity

    def _print_opening(self, opening: Opening, checkpoint: Path | None, total: int) -> None:
        lines = opening_lines(
            self.config,
            opening,
            folder=f"{self.folder} ({'new' if checkpoint is None else 'continued'})",
            device=self.processes.device_name,
            plan=self.plan,
            steps=total,
            data_are_missing=self._missing is not None,
        )
        for line in lines:
            self.processes.say(shown_line(line))

    @property
    def evaluated_model(self) -> nn.Module:
        """What the test metrics are of: the average where the recipe says so, else the model."""
        return self._learner.evaluated_model

    # ---------------------------------------------------------------------------------------------------- the loop

    @property
    def is_complete(self) -> bool:
        """Whether all steps of the run are done."""
        return self._steps.are_complete

    def epochs(self) -> Iterator[int]:
        """Epochs from where the run stands, with a checkpoint after each; the last one also for its evaluation only."""
        while True:
            yield self.position.epoch
            if self.is_complete:
                return
            self.position.epoch += 1
            self.position.step_in_epoch = 0
            self._save_checkpoint()
            self._stop_if_asked()

    def micro_batches(self) -> Iterator[MicroBatch]:
        """Yield this process's micro-batches of the epoch that are left; pass the loss of each to `backward`.

        Raises:
            RunFailure: a loss was not finite, a sample cannot be read, or a loader process was killed.
            Interrupted: a signal asked the run to stop, and it is saved.
        """
        if self.is_complete:
            return
        every = self.config.checkpoint_every
        for micro_batch in self._readable(self._steps.micro_batches()):
            yield micro_batch
            if micro_batch.ends_step and not self.is_complete:
                if every and self.position.step % every == 0 and not self._steps.ends_epoch:
                    self._save_checkpoint()
                self._stop_if_asked()
        self._settle()
        if self.is_complete:  # before the last evaluation, which may take long
            self._save_checkpoint()
            self._stop_if_asked()

    def _readable(self, batches: Iterator[Loaded]) -> Iterator[Loaded]:
        """The same batches; a sample that cannot be read fails the run, whose files are there already."""
        try:
            yield from batches
        except RequestError as error:
            raise RunFailure(f"{error}; --check-data reads every sample before training") from None

    def backward(self, micro_batch: MicroBatch, loss: Tensor) -> None:
        """Take the mean loss, a scalar, of the last micro-batch; the last one of a step updates the weights.

        Raises:
            RunFailure: the loss of this step or, on a GPU, of the one before was not finite.
        """
        with self._finite_losses():
            self._steps.take(micro_batch, loss)

    def _settle(self) -> None:
        """Waits for the losses under way."""
        with self._finite_losses():
            self._steps.settle()

    @contextmanager
    def _finite_losses(self) -> Iterator[None]:
        try:
            yield
        except NotFinite as error:
            if self.is_main:
                self._place.fail(error.values.step, str(error), self.processes.warn)
            raise RunFailure(f"{error}; {last_good_checkpoint(self._place.checkpoints)}") from None

    def test_batches(self, dataset: BatchDataset, at_once: int | None = None) -> Iterator[Any]:
        """This process's batches of a test set; a request to stop is honored between them."""
        self._settle()
        self.log.charge("train")
        for batch in self._readable(super().test_batches(dataset, at_once)):
            yield batch
            self._stop_if_asked(inside_evaluation=True)

    def report(self, metrics: dict[str, float]) -> None:
        """Notes the test metrics of the model as it is."""
        self._settle()
        name = self.config.primary_metric
        value, best = metrics[name], self.position.best.get(name)
        if best is None or (value > best if self.task.metrics[name].higher_is_better else value < best):
            self.position.best = {**metrics, "step": self.position.step}
        self.log.test(metrics, self._learner.learned_parameters())

    # ------------------------------------------------------------------------------------------- checkpoints and stops

    def _save_checkpoint(self) -> None:
        self._settle()
        state = self._learner.state.writers(self.position)
        self.processes.broadcast(
            lambda: self._place.save_checkpoint(self.position.step, state, self.config.keep_checkpoints)
        )
        self.log.skip_time()

    def _stop_if_asked(self, inside_evaluation: bool = False) -> None:
        """Saves and raises Interrupted once all processes know of a signal to any of them."""
        asked = self._signal.number is not None
        if self.processes.count > 1:
            asked = self.processes.any(asked) if inside_evaluation else self._steps.stop_agreed
        if not asked:
            return
        self._save_checkpoint()
        raise Interrupted(
            self._signal.number or signal.SIGTERM,
            f"stopped after step {self.position.step} of {self._steps.total}; the same command continues the run",
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
        extras: Mapping[str, Callable[[], None]] | None = None,
    ) -> Result:
        """Write weights and result.json, then curves and extras, in this order, and return the result.

        Args:
            metrics: of the final weights.
            dataset, model_name: for tables.
            data: what the task says of the data; the fingerprints are added.
            swapped: what became of the activations.
            other: further fields of result.json.
            files: of the run's folder, written by the task, without which the run cannot be used.
            extras: Functions by what they make, such as `samples/worst.png`; see `extra`.
        """
        assert self._identity is not None  # `prepare` was called
        name = self.config.primary_metric
        result = Result(
            task=self.task.name,
            recipe=self.config.recipe,
            dataset=dataset,
            model=model_name,
            activation=self.config.activation,
            seed=self.config.seed,
            primary_metric=PrimaryMetric(name, metrics[name], self.task.metrics[name].higher_is_better),
            metrics=metrics,
            best=self.position.best,
            parameters=sum(p.numel() for p in self._learner.bare_model.parameters()),
            steps=self.position.step,
            train_seconds=round(self.position.train_seconds, 3),
            eval_seconds=round(self.position.eval_seconds, 3),
            throughput=Throughput(self.task.unit, round(self.log.throughput, 2)),
            world_size=self.processes.count,
            data={**data, **self._identity.inputs_to_result()},
            environment=environment(self.processes.device_name, self.task.program),
            config_sha256=config_sha256(self.config),
            activations=swapped,
            other=(other or {}) | self._learner.learned_parameters(),
        )
        weights = self._learner.weights()
        written: Result = self.processes.broadcast(lambda: self._place.finish(result, weights, files))
        self.extra(CURVES_FILE, partial(self._save_curves, written))
        for what, make in (extras or {}).items():
            self.extra(what, make)
        if self.is_main and not self._extras.can_retry:
            self.extra("the note that pictures are made", self._place.settle_extras)
        self.processes.say(f"finished: {name} {metrics[name]:.5g}; everything is in {self.folder}")
        return written

    def _save_curves(self, result: Result) -> None:
        if self.is_main:
            self._place.save_curves(result)

    def extra(self, what: str, make: Callable[[], None]) -> None:
        """Make something that the run can do without, such as a picture: a failure is one warning, and no more.

        Every process calls this; `make` leaves writing to the main one. A failure must be the same on all processes, or
        on the main one while no other waits for it.

        Args:
            what: The file, for the warning; each is warned of once.
            make: Makes it.
        """
        self._extras.make(what, make)
        self.log.skip_time()
