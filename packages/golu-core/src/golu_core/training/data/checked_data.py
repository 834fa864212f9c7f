"""Loading a task's data, the same for all tasks: once by one process, with what is to be said of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from ..config.run_config import RunConfig
from ..distributed.processes import Processes
from ..storage.fingerprint import Fingerprint


class TaskData(Protocol):
    """What every task's data have.

    Attributes:
        remarks: Sentences on differences from the published sizes and on omitted files.
        fingerprint: The fingerprint of the data's content.
    """

    @property
    def remarks(self) -> Sequence[str]: ...

    @property
    def fingerprint(self) -> Fingerprint: ...


Data = TypeVar("Data", bound=TaskData)


def load_checked(
    config: RunConfig, processes: Processes, load: Callable[[], Data], read_all: Callable[[Data], str]
) -> Data:
    """Load a task's data: the main process first, with a warning for each remark. `--check-data` reads every sample.

    Args:
        config: The run's configuration.
        processes: The processes of the run. The main one loads first, since it may write a sample that the others find.
        load: Loads the data, which have `remarks` (sentences) and a `fingerprint`.
        read_all: Reads each sample and returns a sentence about what was read; RequestError names the first bad one.

    Raises:
        RequestError: The data are missing or malformed.

    Examples:
        >>> from pathlib import Path
        >>> from types import SimpleNamespace
        >>> from golu_core.training import EpochConfig, Processes, load_checked
        >>> config, data = EpochConfig(check_data=True), SimpleNamespace(rows=[1, 2, 3], remarks=[])
        >>> processes = Processes(config, Path("runs"))
        >>> found = load_checked(config, processes, lambda: data, lambda data: f"all {len(data.rows)} rows can be read")
        data: all 3 rows can be read
    """
    with processes.main_first():
        data = load()
    for remark in data.remarks:
        processes.warn(remark)
    if config.check_data:
        processes.say(f"data: {read_all(data)}")
    return data
