"""`Run`: one training run, from its folder to its result. Each task's `train.py` calls it; there are no callbacks.

In order:

1. `report_if_finished` tells you whether the run folder already holds the result.
2. `load` reads the data.
3. `prepare` checks everything, opens the run folder and prints the opening block. A dry run ends here.
4. `epochs` and `micro_batches` yield the training data, `backward` accepts losses, `report` logs the test metrics.
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
from ..config.run_config import Config, limited_steps
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
    """One training run: folder, resuming, signals, steps, metrics, checkpoints, and result.

    Args:
        config: The full configuration.
        task: The task of the run.

    Attributes:
        config, folder: The configuration and the run folder.
        processes: The processes of this launch.
        evaluation: The argument for a task's evaluation function; stop requests are honored between its batches.

    Raises:
        RequestError: The run folder belongs to another config, or the launcher's processes cannot see each other.

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
        task.check_request(config)
        self.config = config
        self.task = task
        self.folder = task.run_folder(config)
        me = weakref.proxy(self)  # a reference cycle would keep loader processes alive for 20 seconds
        self.evaluation = Evaluation(config, self.folder, around=lambda batches: me._interruptible(batches))
        self.processes = self.evaluation.processes
        self.position = Position()
        self.log = RunLog(config, self.processes, self.folder, task.unit, config.batch_size * config.units_per_sample)
        self._signal = StopSignal(announce=self.is_main)
        self._place = RunFolder(self.folder, task.outputs)
        self._place.check_owner(config, may_be_longer=True)
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
        """The split of the batch among the processes; raises RequestError if it is not divisible."""
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
        # a failed process must not wait for the others
        if error is None or dry_run_ends or isinstance(error, Interrupted):
            self.processes.end()
        return dry_run_ends

    def report_if_finished(self) -> bool:
        """Print a line and return True if this run has already finished.

        If a finished run's files are damaged, print a warning; training completes the run from its last checkpoint.
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
            load: The function that loads the data.
            stand_in: The function that returns the stand-in; None for data without published sizes, such as your own.

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
        """Open the run folder, move model and optimizer to the device, and restore the newest complete checkpoint.

        Nothing is written before this call. A dry run ends here.

        Args:
            model, optimizer: The model and its optimizer, on the CPU or already on the device.
            dataset, order: The training set and the order of its samples.
            inputs: The fingerprints of everything the run's numbers depend on: `data`, and any other input files.
            opening: The task's lines to print before the first step; None prints nothing.
            average: The settings of the weight average; None keeps no average.
            steps_per_pass: The number of steps in one pass over the data, if the loop's epochs are not passes but the
                steps between two evaluations; metrics then count epochs in fractions.
            units_per_step: The average number of throughput units per step, if the config does not determine it.
            batch_norm: Whether batch norm normalizes over all processes.

        Returns:
            The model to call during training.

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
        """Return the checkpoint to resume from, if any, and the run's identity; a dry run writes nothing."""
        identity = RunIdentity.of(self.config, inputs, environment(self.processes.device_name, self.task.distribution))
        if self._missing is not None:
            return None, identity
        look = self._place.check if self.config.dry_run else self._place.open
        return look(identity, self.processes.warn), identity

    @property
    def evaluated_model(self) -> nn.Module:
        """The model to evaluate: the average of the weights if the recipe evaluates it, else the model."""
        return self._built.learner.evaluated_model

    @property
    def kept_average(self) -> nn.Module | None:
        """The average of the weights if the recipe keeps one without evaluating it; None otherwise."""
        return self._built.learner.kept_average

    # ---------------------------------------------------------------------------------------------------- the loop

    @property
    def is_complete(self) -> bool:
        """Whether all steps of the run are done."""
        return self._built.steps.are_complete

    def epochs(self) -> Iterator[int]:
        """Yield the remaining epochs, and save a checkpoint after each. An interrupted last evaluation is repeated."""
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
        """Yield this process's remaining micro-batches of the epoch; pass the loss of each to `backward`.

        Raises:
            RunFailure: A loss was not finite, a sample cannot be read, or a loader process was killed.
            Interrupted: A signal asked the run to stop; a checkpoint has been saved.
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
        if self.is_complete:  # the last evaluation may take long
            self._save_checkpoint()
            self._stop_if_asked()

    def _readable(self, batches: Iterator[Loaded]) -> Iterator[Loaded]:
        """Yield the same batches; raise RunFailure if a sample cannot be read, since the run has already started."""
        try:
            yield from batches
        except RequestError as error:
            raise RunFailure(f"{error}; --check-data reads every sample before training") from None

    def backward(self, micro_batch: MicroBatch, loss: Tensor) -> None:
        """Run backward on a micro-batch's mean loss, a scalar; after a step's last micro-batch, update the weights.

        Raises:
            RunFailure: The loss of this step or, on a GPU, of the previous step was not finite.
        """
        with self._finite_losses():
            self._built.steps.take(micro_batch, loss)

    def _settle(self) -> None:
        """Wait for the losses in flight."""
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
        """Yield the batches of an evaluation; stop requests are honored after each."""
        self._settle()
        self._built.learner.share_buffers()
        self.log.charge("train")
        for batch in self._readable(batches):
            yield batch
            self._stop_if_asked(inside_evaluation=True)

    def report(self, metrics: dict[str, float]) -> None:
        """Log the test metrics of the current model."""
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
        """Save a checkpoint and raise Interrupted once all processes know that one of them received a signal."""
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
            metrics: The test metrics of the final weights.
            dataset, model_name: The names of data set and model in tables.
            data: The task's facts about the data; the fingerprints are added.
            swapped: The report of the activation swap.
            other: Additional fields of result.json.
            files: The files in the run folder that the task wrote and that using the run requires.
            extras: Functions by the file they write, such as `samples/worst.png`; see `extra`.
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
        """Write an optional output, such as a picture. If it fails, the run only prints a warning.

        Every process calls this, but `make` must write only on the main one. A failure must occur on all processes, or
        on the main one while no other process waits for it.

        Args:
            what: The file's name in the warning, which is printed once per file.
            make: The function that writes the file.
        """
        self._extras.make(what, make)
        self.log.skip_time()
