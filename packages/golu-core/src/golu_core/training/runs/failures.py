"""failure.json: why a run ended without a result, one schema for the runs that write it and the tools that read it.

Only a run that its own numbers ended writes it: a loss that is not finite. The same command would end there again. What
else ends a run, such as a full disk or a kill, says nothing about the activation, and the same command continues.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...regular_files import regular_json
from ..messages.errors import RequestError
from ..storage.ownership import write_json

FAILURE_FILE = "failure.json"
FORMAT = "golu-failure/1"


@dataclass(frozen=True)
class Failure:
    """The content of failure.json.

    Attributes:
        step: The optimizer step that ended the run, counted from 1.
        reason: A sentence, such as `the loss of step 12 is nan at learning rate 0.1`.
        checkpoint: The newest checkpoint, relative to the run folder; empty if there is none.
    """

    step: int
    reason: str
    checkpoint: str


def write_failure(folder: Path, failure: Failure) -> None:
    """Write a run's failure.json, whole or not at all."""
    write_json(folder / FAILURE_FILE, {"format": FORMAT, **dataclasses.asdict(failure)})


def read_failure(folder: Path) -> Failure | None:
    """Return why the run in a folder ended without a result; None if nothing is known of a failure.

    Raises:
        RequestError: The file cannot be read, or another version of golu wrote it.
    """
    path = folder / FAILURE_FILE
    try:
        values: Any = regular_json(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(f"{path} cannot be read: {error}") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        written_as = values.get("format") if isinstance(values, dict) else None
        raise RequestError(f"{path} cannot be used: its format is {written_as!r}, not {FORMAT!r}")
    kinds = {"step": int, "reason": str, "checkpoint": str}
    wrong = [name for name, kind in kinds.items() if type(values.get(name)) is not kind]
    if wrong:
        raise RequestError(f"{path} cannot be used: its field {wrong[0]} is missing or malformed")
    return Failure(**{name: values[name] for name in kinds})
