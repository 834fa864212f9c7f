"""A finished run: its config, its result, and its weights, each checked before it is used."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic

from ..config.fields import NonNegativeInt, Samples
from ..config.identity import config_sha256
from ..config.named_activations import require_activation
from ..config.optim import Average
from ..config.run_config import Config
from ..messages.errors import RequestError
from ..messages.text_sinks import complain
from ..storage.fingerprint import Fingerprint, file_digest
from .results import RESULT_FILE, Result, compared, read_result
from .run_files import AVERAGE_FILE, CONFIG_FILE, WEIGHTS_FILE, read_config

if TYPE_CHECKING:
    from torch import nn

    from ..distributed.processes import Processes

_COMPLETES = "the command that trains it completes it from its last checkpoint"


@dataclass(frozen=True)
class EvaluationFlags:
    """Evaluate the final weights of a finished run.

    Examples:
        >>> from pathlib import Path
        >>> from golu_core.training import EvaluationFlags
        >>> EvaluationFlags(data_dir=Path("data")).num_workers is None
        True
    """

    data_dir: Path | None = None
    """Folder that holds the data sets; by default that of the run."""
    num_workers: NonNegativeInt | None = None
    """Loader processes."""


@dataclass(frozen=True)
class BatchEvaluationFlags(EvaluationFlags):
    """Evaluate the final weights of a finished run.

    Examples:
        >>> from pathlib import Path
        >>> from golu_core.training import BatchEvaluationFlags
        >>> BatchEvaluationFlags(data_dir=Path("data"), eval_batch=64).eval_batch
        64
    """

    eval_batch: Samples | None = None
    """Samples that a device takes at once; the default is the run's, and another value changes the last digits."""


def _on_this_device(config: Config) -> Config:
    """The config without what only a GPU has, where there is none; what moves the last digits is a warning."""
    from ..distributed.devices import default_device

    if default_device().type != "cpu":
        return config
    if config.mixed_precision == "fp16":
        complain("warning: the run used fp16, which needs a GPU; this machine evaluates it in float32")
        config = dataclasses.replace(config, mixed_precision="no")
    return dataclasses.replace(config, deterministic=False)


@dataclass(frozen=True)
class FinishedRun(Generic[Config]):
    """A finished run. `FinishedRun.at` reads it from its folder, and checks each file before it is used.

    Attributes:
        folder: The run folder.
        config: The run's configuration, without what evaluation does not use, such as a tracker.
        result: The content of its result.json.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from golu_core.training import EpochConfig, FinishedRun
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     FinishedRun.at(Path(folder), EpochConfig)
        Traceback (most recent call last):
        golu_core...RequestError: ... is not a run folder: it has no config.json
    """

    folder: Path
    config: Config
    result: Result

    @classmethod
    def at(cls, folder: Path, config_type: type[Config]) -> FinishedRun[Config]:
        """Return the finished run in a folder; raise RequestError if there is none or it is damaged."""
        config = read_config(folder, config_type)
        path = folder / RESULT_FILE
        if not path.exists():
            raise RequestError(f"{path} is missing: the run is not finished; {_COMPLETES}")
        result = read_result(path)
        if result.config_sha256 != config_sha256(config):
            raise RequestError(
                f"{folder / CONFIG_FILE} is not the config that {RESULT_FILE} names: one of them was changed"
            )
        require_activation(config, folder)
        plain = dataclasses.replace(config, tracker="none", overwrite=False, dry_run=False, check_data=False)
        return cls(folder, _on_this_device(plain), result)

    def evaluated_with(self, flags: EvaluationFlags) -> Config:
        """Return the config with the flags passed to `evaluate` applied."""
        given = {name: getattr(flags, name) for name in ("data_dir", "num_workers") if getattr(flags, name) is not None}
        return dataclasses.replace(self.config, **given)

    def check_input(self, name: str, fingerprint: Fingerprint) -> None:
        """Raise RequestError if the run was trained on different data."""
        inputs = {"data": self.result.data.get("fingerprint"), **self.result.data.get("inputs", {})}
        there = inputs.get(name)
        if there != fingerprint.text:
            raise RequestError(
                f"the {name} are not those of the run in {self.folder}: it has {there}, these are {fingerprint.text}, "
                f"and numbers on them could not be compared"
            )

    def check_file(self, name: str) -> Path:
        """Return the path of one of the run's files; raise RequestError if it is missing or its checksum differs."""
        path = self.folder / name
        expected = self.result.files.get(name)
        if not path.exists():
            raise RequestError(f"{path} is missing: {_COMPLETES}")
        if expected is None:
            raise RequestError(f"{self.folder / RESULT_FILE} does not name a checksum of {name}: {_COMPLETES}")
        if file_digest(path) != expected:
            raise RequestError(
                f"{path} is damaged: it does not have the checksum that {RESULT_FILE} names; {_COMPLETES}"
            )
        return path

    def load_weights(self, model: nn.Module, name: str = WEIGHTS_FILE) -> None:
        """Load the run's final weights into a model.

        Raises:
            RequestError: They are missing or damaged, or do not fit the model.
            RunFailure: They are not finite.
        """
        from ..storage.weights_files import load_into
        from .finite_numbers import finite_weights

        path = self.check_file(name)
        load_into(model, path)
        finite_weights(model, path)

    def load_evaluated_weights(self, model: nn.Module, average: Average | None) -> None:
        """Load the weights that the run evaluated: the average if it was evaluated, else the final weights."""
        averaged = average is not None and average.evaluate
        self.load_weights(model, AVERAGE_FILE if averaged else WEIGHTS_FILE)

    def print_beside_result(self, metrics: dict[str, float], processes: Processes) -> None:
        """Prints metrics that were just taken, and on standard error whether they are those of result.json.

        Raises:
            RunFailure: A metric is not finite.
        """
        from .finite_numbers import finite_metrics

        finite_metrics(metrics)
        for name, value in metrics.items():
            processes.say(f"{name} {value:.6g}")
        if processes.is_main:
            complain(compared(metrics, self.result))
