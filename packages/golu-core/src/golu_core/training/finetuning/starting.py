"""The start of a run with initial weights: they are loaded, and evaluated before training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..config.run_config import Config, RunConfig
from ..distributed.processes import Processes
from ..figures.curves import read_metrics
from ..loop.run import Run
from ..messages.errors import RequestError
from ..runs.run_files import METRICS_FILE
from ..storage.fingerprint import Fingerprint, tensors_fingerprint
from ..storage.ownership import RUN_MARKER, read_marker
from ..tasks.task import Task
from .freezing import freeze
from .given_weights import GivenWeights, LoadReport, load_given

_GIVEN, _SWAPPED = "given", "swapped"
_COUNTS = ("loaded", "made_new", "left_over")


@dataclass(frozen=True)
class Start:
    """The initial weights of a run.

    Attributes:
        fingerprint: The fingerprint of the weights.
        head: The names of the tensors whose shape depends on the number of classes.
        with_head: Whether the head is loaded if its shape matches.
        given: The weights; None if a run is resumed after its source was deleted.
        fit: The load report.
    """

    fingerprint: Fingerprint
    head: frozenset[str]
    with_head: bool = True
    given: GivenWeights | None = None
    fit: LoadReport | None = None


def inputs_of_start(start: Start | None) -> dict[str, Fingerprint]:
    """Return the fingerprints of a run's initial weights, if any, for `inputs` of `Run.prepare`."""
    return {} if start is None else {"init_from": start.fingerprint}


def shown_start(start: Start | None) -> list[tuple[str, str]]:
    """Return the load report as lines of `--dry-run`; none if the run starts from random weights."""
    return [] if start is None or start.fit is None else [("starts from", start.fit.sentence())]


def head_of_start(start: Start | None) -> frozenset[str]:
    """Return the tensors' names that `--optim.backbone-lr-scale` does not scale; empty without initial weights."""
    return frozenset() if start is None else start.head


def start_given(
    config: RunConfig,
    task: Task[Any],
    model: nn.Module,
    processes: Processes,
    read: Callable[[str], GivenWeights],
    *,
    head: frozenset[str] = frozenset(),
    with_head: Callable[[GivenWeights], bool | None] = lambda given: True,
) -> Start | None:
    """Load the weights of `--init-from` and apply `--freeze`; return None if the run starts from random weights.

    A run with a checkpoint resumes even if the source has been deleted, because the checkpoint holds everything.

    Args:
        config: The run's configuration.
        task: The run's task.
        model: The network, modified in place.
        processes: The processes of the run.
        read: Function of a source, as passed to `--init-from`, that returns its weights.
        head: The names of the tensors whose shape depends on the number of classes.
        with_head: Whether the weights have the same classes as the run; None if the weights do not state theirs. A
            head with a matching shape is then loaded, with a warning.

    Raises:
        RequestError: The weights cannot be read or belong to another network, or `--freeze` cannot be applied.
    """
    if config.init_from is None:
        return None
    source = config.init_from
    try:
        if processes.count > 1:  # one process downloads, or finds that the source is gone, for all
            processes.broadcast(lambda: _discarded(read(source)))
        given = read(source)
    except RequestError:
        known = _known_fingerprint(config, task)
        if known is None:
            raise
        processes.warn(f"{config.init_from} cannot be read any more; the run continues from its checkpoint")
        freeze(model, config.freeze)
        return Start(Fingerprint(lambda: known), head)
    same_classes = with_head(given)
    takes_head = same_classes is not False
    fit = load_given(model, given, head, takes_head)
    if same_classes is None and head & set(fit.loaded):
        processes.warn(f"{given.source} does not name its classes: its head fits, and is loaded as it is")
    freeze(model, config.freeze, fit.made_new)
    if given.activation and given.activation != config.activation:
        processes.warn(f"{given.source} was trained with {given.activation}; the run goes on with {config.activation}")
    return Start(tensors_fingerprint(given.tensors), head, takes_head, given, fit)


def _discarded(given: GivenWeights) -> None:
    """Return nothing, because the weights are too large to send between processes, and every process can read them."""


def _known_fingerprint(config: RunConfig, task: Task[Any]) -> str | None:
    """Return the fingerprint of the weights that the run in the folder started from, if it can be resumed."""
    folder = task.run_folder(config)
    known = (read_marker(folder, RUN_MARKER) or {}).get("inputs", {}).get("init_from")
    can_continue = not config.overwrite and any((folder / "checkpoints").glob("step-*"))
    return str(known) if known is not None and can_continue else None


def measure_start(
    run: Run[Config],
    start: Start | None,
    build: Callable[[str], nn.Module],
    evaluate: Callable[[nn.Module], dict[str, float]],
) -> None:
    """Evaluate the network before training: with the activation of its weights, and with the run's activation.

    The metrics are written to metrics.jsonl once, as `given` and `swapped`. With a reinitialized head they are
    skipped, because it is random.

    Args:
        run: The run, after `prepare`.
        start: The run's initial weights; None if it starts from random weights.
        build: Function of an activation that returns the network on the CPU.
        evaluate: Function of a network on the run's device that returns its test metrics.
    """
    if start is None or start.given is None or start.fit is None or run.position.step:
        return
    done = run.processes.broadcast(lambda: _splits(run))
    own = start.given.activation or run.config.default_activation
    if _GIVEN not in done:
        counts = {name: len(getattr(start.fit, name)) for name in _COUNTS}
        run.processes.say(f"starting from {start.given.source}: {start.fit.sentence()}")
        metrics = _metrics_as_given(run, start, own, build, evaluate)
        run.log.given(_GIVEN, own, {**counts, **metrics})
    if _SWAPPED not in done and own != run.config.activation and _is_measured(start):
        metrics, primary = evaluate(run.evaluated_model), run.config.primary_metric
        run.log.given(_SWAPPED, run.config.activation, metrics)
        run.processes.say(f"with {run.config.activation} in it, before training: {primary} {metrics[primary]:.5g}")


def _splits(run: Run[Any]) -> set[str]:
    path = run.folder / METRICS_FILE
    return {line["split"] for line in read_metrics(path)} if path.exists() else set()


def _is_measured(start: Start) -> bool:
    """Whether the head, if there is one, was loaded from the initial weights."""
    return start.fit is not None and not start.head & set(start.fit.made_new)


def _metrics_as_given(
    run: Run[Config],
    start: Start,
    activation: str,
    build: Callable[[str], nn.Module],
    evaluate: Callable[[nn.Module], dict[str, float]],
) -> dict[str, float]:
    """Return the metrics of the network with the activation that it was trained with."""
    assert start.given is not None
    if not _is_measured(start):
        run.processes.say("its head is new: there are no test metrics before training")
        return {}
    try:
        network = build(activation)
    except (RequestError, ValueError) as error:  # an activation of somebody's own, which only its run names
        run.processes.warn(f"{start.given.source} is not measured with {activation}: {error}")
        return {}
    load_given(network, start.given, start.head, start.with_head)
    metrics = evaluate(network.to(run.device))
    primary = run.config.primary_metric
    run.processes.say(f"unchanged, with {activation}: {primary} {metrics[primary]:.5g}")
    return metrics
