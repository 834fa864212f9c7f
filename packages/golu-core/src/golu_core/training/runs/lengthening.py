"""Whether a run that you ask to be longer is the run that is there, so far: then it continues, and does not start over.

It is where nothing in the steps already done depends on the length of the run. A cosine does, and so does an average
of the last weights.
"""

from __future__ import annotations

import math
from typing import Any

from ..config.identity import differences, identity
from ..config.optim import LastAverage
from ..config.run_config import RunConfig
from ..config.schedules import Cosine, Polynomial

_PLANNED = ("epochs", "steps")
_LENGTHS = (*_PLANNED, "max_steps")
"""Fields that set the length of a run; `max_steps` ends it without a change of the schedule."""


def is_longer(config: RunConfig, there: RunConfig) -> bool:
    """Whether a config differs from that of the run that lies there in its length alone, and is longer."""
    differing = [line.partition(":")[0] for line in differences(config, there)]
    if not differing or not set(differing) <= set(_LENGTHS):
        return False
    asked, found = identity(config), identity(there)
    return all(_size(asked.get(name)) >= _size(found.get(name)) for name in differing)


def _size(value: Any) -> float:
    return math.inf if value is None else float(value)


def why_another_run(config: RunConfig, there: RunConfig) -> str | None:
    """Return why the steps already done would have been others in the longer run; None if they are the same."""
    average = getattr(config, "average", None)
    if isinstance(average, LastAverage):
        return f"it averages the last {average.count} weights, and these would be others"
    planned = [getattr(config, name, None) != getattr(there, name, None) for name in _PLANNED]
    if any(planned) and isinstance(config.schedule, (Cosine, Polynomial)):
        return f"with --schedule {config.schedule.kind}, each learning rate depends on the length of the run"
    return None


def length_of(config: RunConfig) -> str:
    """Return the length that a config asks for: `epochs 8`, or `epochs 8, max_steps 100`."""
    values = {name: getattr(config, name, None) for name in _LENGTHS}
    return ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)
