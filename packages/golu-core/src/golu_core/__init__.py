"""GoLU, the Gompertz Linear Unit, as a PyTorch activation, and what the golu training packages share."""

from typing import Any

from ._front_door import front_door

_exported, __dir__ = front_door(__name__)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("golu-core")
    return _exported(name)
