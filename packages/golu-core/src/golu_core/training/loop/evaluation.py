"""`Evaluation`: everything you need to evaluate a model, except the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Generic

import torch
from torch.utils.data import DataLoader

from ..config.run_config import Config
from ..data.loading import evaluation_loader, loaded
from ..data.orders import BatchDataset
from ..distributed.processes import Processes


class Evaluation(Generic[Config]):
    """The config, the processes, and this process's batches of a test set. In training, use `Run.evaluation`.

    Args:
        config: The run's configuration.
        folder: The run folder.
        around: A generator function that yields the batches it receives, with side effects such as checking signals.

    Raises:
        RequestError: The launcher's processes cannot see each other.

    Examples:
        >>> from pathlib import Path
        >>> from golu_core.training import EpochConfig, Evaluation
        >>> class Rows:
        ...     in_memory = True
        ...     def __len__(self):
        ...         return 5
        ...     def __getitems__(self, keys):
        ...         return [key.position for key in keys]
        >>> with Evaluation(EpochConfig(batch_size=3), Path("runs/line")) as evaluation:
        ...     list(evaluation.test_batches(Rows()))  # -1 only fills up the last batch
        [[0, 1, 2], [3, 4, -1]]
    """

    def __init__(self, config: Config, folder: Path, around: Callable[[Iterator[Any]], Iterator[Any]] = iter) -> None:
        self.config = config
        self.folder = folder
        self.processes = Processes(config, folder)
        self._around = around
        self._test_loader: DataLoader[Any] | None = None
        self._loaded_from: tuple[BatchDataset, int] | None = None

    def __enter__(self) -> Evaluation[Config]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if error is None:  # a failed process must not wait for the others
            self.processes.end()
        return None

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return self.processes.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes."""
        return self.processes.is_main

    def test_batches(self, dataset: BatchDataset, at_once: int | None = None) -> Iterator[Any]:
        """Yield this process's batches of a test set; together, the processes see each sample once.

        Args:
            dataset: The test set.
            at_once: The number of samples per batch; the default is the config's evaluation batch size.
        """
        size = at_once or self.config.evaluation_batch
        if self._loaded_from is None or self._loaded_from[0] is not dataset or self._loaded_from[1] != size:
            processes = self.processes
            self._test_loader = evaluation_loader(
                dataset, size, processes.count, processes.rank, self.config.num_workers
            )
            self._loaded_from = dataset, size
        assert self._test_loader is not None
        yield from self._around(loaded(self._test_loader))
