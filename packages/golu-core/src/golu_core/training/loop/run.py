"""`Run`: one training run, from its folder to its result. Each task's `train.py` calls it; it calls nobody back.

In order:

1. `report_if_finished` ends the command where the run folder holds its result.
2. `load` reads the data.
3. `prepare` checks everything, opens the run folder and prints the opening block. A dry run ends here.
4. `epochs` and `micro_batches` yield what to train on, `backward` takes its losses, `report` the epoch's test metrics.
5. `finish` writes the weights and result.json, then curves and extras.
"""

from __future__ import annotations

import signal
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from ..config.fields import BatchNorm
from ..config.optim import Average
from ..config.run_config import Config, limited_steps, require_tracker
from ..data.loading import TrainingLoader
from ..data.orders import BatchDataset, BatchPlan, SampleOrder, plan_batches
from ..distributed.signals import StopSignal
from ..messages.errors import Interrupted, RequestError, RunFailure
from ..runs.checkpoint import last_good_checkpoint
from ..runs.folder import RunFolder
from ..runs.provenance import environment
from ..runs.results import Result, SwappedActivations
from ..runs.run_files import CURVES_FILE, RunIdentity
from ..storage.fingerprint import Fingerprint
from ..tasks.opening import Opening
from ..tasks.task import Task
from .batch_norms import batch_norm_lines, check_batch_norm
from .evaluation import Evaluation
from .extras import Extras
from .learner import Learner
from .log import RunLog
from .opening_block import print_end, print_opening
from .prepared import Prepared
from .state import Position
from .steps import MicroBatch, NotFinite, Steps

Loaded = TypeVar("Loaded")


class _DryRunEnds(Exception):
    """A dry run has printed its opening block; nothing was written."""


class Run(Generic[Config]):
    """One training run: folder, continuation, signals, steps, metrics, checkpoints, result.

    Args:
        config: The full configuration.
        task: The task that it belongs to.

    Attributes:
        config, folder: The configuration, and the run folder.
        processes: The processes of this launch.
        evaluation: What a task's evaluation function needs; a request to stop is honored between its batches.

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
        self.config = config
        self.task = task
        self.folder = task.run_folder(config)
        me = weakref.proxy(self)  # or this run would hold itself, and its loader processes outlive it for 20 seconds
        self.evaluation = Evaluation(config, self.folder, around=lambda batches: me._interruptible(batches))
        self.processes = self.evaluation.processes
        self.position = Position()
        self.log = RunLog(config, self.processes, self.folder, task.unit, config.batch_size * config.units_per_sample)
        self._signal = StopSignal(announce=self.is_main)
        self._place = RunFolder(self.folder, task.outputs)
        self._place.check_owner(config)
        self._missing: RequestError | None = None
        self._extras = Extras(self.processes.warn)
        self._prepared: Prepared | None = None

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return self.processes.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes."""
        return self.processes.is_main

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
        """Print a line and return True if the run folder holds this run, finished.

        If a finished run's files are damaged, print that instead; training completes the run from its last checkpoint.
        """
        if self.config.overwrite:
            return False
        found = self.processes.broadcast(lambda: self._place.finished(self.config, self.processes.warn))
        if found is None:
            return False
        self.processes.say(f"finished already: {found.primary_metric.shown}, in {self.folder}")
        return True

    def load(self, load: Callable[[], Loaded], stand_in: Callable[[], Loaded] | None = None) -> Loaded:
        """Load the data. If they are missing, a dry run describes a stand-in of the published sizes instead.

        Args:
            load: Loads the data.
            stand_in: Returns the stand-in; None for data without published sizes, such as your own.

        Raises:
            RequestError: The data are missing or malformed. With a stand-in, `prepare` raises it.
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
        batch_norm: BatchNorm = "synchronized",
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
            batch_norm: Whether batch norm normalizes over all processes.

        Returns:
            The model to call in training.

        Raises:
            RequestError: The folder holds another run, an average of a sharded model is requested, or the data are
                missing.
        """
        check_batch_norm(model, batch_norm, self.config, self.plan)
        normalized = batch_norm_lines(model, batch_norm, self.plan, self.processes)
        learner = Learner(self.processes, model, optimizer, average, self.config.compile, batch_norm)
        self.processes.wait_for_all()
        length = self.config.length(order.steps_per_epoch)
        total = limited_steps(self.config, length.steps)
        checkpoint, identity = self.processes.broadcast(lambda: self._opened(inputs))
        if checkpoint is not None:
            self.position = learner.state.restore(checkpoint)
        if opening is not None:
            folder = f"{self.folder} ({'new' if checkpoint is None else 'continued'})"
            missing = self._missing is not None
            print_opening(opening, normalized, self.config, self.processes, self.plan, folder, total, missing)
        if self._missing is not None:
            raise self._missing
        if self.config.dry_run:
            raise _DryRunEnds
        self._signal.armed = True
        self.log.start(self.position, total, self.task.name, steps_per_pass, units_per_step)
        if checkpoint is not None:
            self.processes.say(f"continuing {self.folder} after step {self.position.step} of {total}")
        loader = TrainingLoader(dataset, order, self.plan, self.processes.rank, self.config.num_workers)
        steps = Steps(
            self.config, length, total, self.processes, learner, loader, self.position, self.log, self._signal
        )
        self._prepared = Prepared(learner, steps, identity)
        return learner.model

    @property
    def _built(self) -> Prepared:
        if self._prepared is None:
            raise RuntimeError("call Run.prepare first")
        return self._prepared

    def _opened(self, inputs: Mapping[str, Fingerprint]) -> tuple[Path | None, RunIdentity]:
        """Return the checkpoint to continue from, if there is one, and the run's identity; a dry run only looks."""
        identity = RunIdentity.of(self.config, inputs, environment(self.processes.device_name, self.task.distribution))
        if self._missing is not None:
            return None, identity
        look = self._place.check if self.config.dry_run else self._place.open
        return look(identity, self.processes.warn), identity

    @property
    def evaluated_model(self) -> nn.Module:
        """What the test metrics are of: the average where the recipe says so, else the model."""
        return self._built.learner.evaluated_model

    @property
    def kept_average(self) -> nn.Module | None:
        """The average of the weights where one is kept and the test metrics are not of it; None otherwise."""
        return self._built.learner.kept_average

    # ---------------------------------------------------------------------------------------------------- the loop

    @property
    def is_complete(self) -> bool:
        """Whether all steps of the run are done."""
        return self._built.steps.are_complete

    def epochs(self) -> Iterator[int]:
        """Yield the epochs that are left, with a checkpoint after each. A stopped last evaluation is repeated."""
        steps = self._built.steps
        while True:
            yield self.position.epoch
            if steps.are_complete:
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
        for micro_batch in self._readable(self._built.steps.micro_batches()):
            yield micro_batch
            if micro_batch.ends_step and not self.is_complete:
                if every and self.position.step % every == 0 and not self._built.steps.ends_epoch:
                    self._save_checkpoint()
                self._stop_if_asked()
        self._settle()
        self._built.learner.average_statistics()
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
            self._built.steps.take(micro_batch, loss)

    def _settle(self) -> None:
        """Waits for the losses under way."""
        with self._finite_losses():
            self._built.steps.settle()

    @contextmanager
    def _finite_losses(self) -> Iterator[None]:
        try:
            yield
        except NotFinite as error:
            if self.is_main:
                self._place.fail(error.values.step, str(error), self.processes.warn)
            raise RunFailure(f"{error}; {last_good_checkpoint(self._place.checkpoints)}") from None

    def _interruptible(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Yield the batches of an evaluation; a request to stop is honored after each."""
        self._settle()
        self._built.learner.share_buffers()
        self.log.charge("train")
        for batch in self._readable(batches):
            yield batch
            self._stop_if_asked(inside_evaluation=True)

    def report(self, metrics: dict[str, float]) -> None:
        """Notes the test metrics of the model as it is."""
        self._settle()
        name = self.config.primary_metric
        value, best = metrics[name], self.position.best.get(name)
        if best is None or (value > best if self.task.metrics[name].higher_is_better else value < best):
            self.position.best = {**metrics, "step": self.position.step}
        self.log.test(metrics, self._built.learner.learned_parameters())

    # ------------------------------------------------------------------------------------------- checkpoints and stops

    def _save_checkpoint(self) -> None:
        self._settle()
        state = self._built.learner.state.writers(self.position)
        self.processes.broadcast(
            lambda: self._place.save_checkpoint(self.position.step, state, self.config.keep_checkpoints)
        )
        self.log.skip_time()

    def _stop_if_asked(self, inside_evaluation: bool = False) -> None:
        """Saves and raises Interrupted once all processes know of a signal to any of them."""
        asked = self._signal.number is not None
        if self.processes.count > 1:
            asked = self.processes.any(asked) if inside_evaluation else self._built.steps.stop_agreed
        if not asked:
            return
        self._save_checkpoint()
        raise Interrupted(
            self._signal.number or signal.SIGTERM,
            f"stopped after step {self.position.step} of {self._built.steps.total}; the same command continues the run",
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
        result = self._built.result(
            self.task, metrics, dataset=dataset, model=model_name, data=data, activations=swapped, other=other or {}
        )
        weights = self._built.learner.weights()
        written: Result = self.processes.broadcast(lambda: self._place.finish(result, weights, files))
        self.extra(CURVES_FILE, partial(self._save_curves, written))
        for what, make in (extras or {}).items():
            self.extra(what, make)
        if self.is_main and not self._extras.can_retry:
            self.extra("the note that pictures are made", self._place.settle_extras)
        print_end(self.task, self.folder, result, self.processes)
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
