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
        remarks: what differs from the published sizes, and what was left out, as sentences.
        fingerprint: of their content.
    """

    @property
    def remarks(self) -> Sequence[str]: ...

    @property
    def fingerprint(self) -> Fingerprint: ...


Data = TypeVar("Data", bound=TaskData)


def load_checked(
    config: RunConfig, processes: Processes, load: Callable[[], Data], read_all: Callable[[Data], str]
) -> Data:
    """The data; what is remarkable in them is said, and with `--check-data` each sample is read.

    Args:
        config: of the run.
        processes: the main one loads first, since it may write a sample that the others find.
        load: loads the data.
        read_all: reads each sample and says what was read; RequestError names the first bad one.

    Raises:
        RequestError: data are missing or malformed.
    """
    with processes.main_first():
        data = load()
    for remark in data.remarks:
        processes.warn(remark)
    if config.check_data:
        processes.say(f"data: {read_all(data)}")
    return data
