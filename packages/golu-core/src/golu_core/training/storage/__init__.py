"""Files: checked when read, written whole or not at all, locked, and removed only if they are marked as ours."""

from ..._front_door import front_door

__getattr__, __dir__ = front_door(__name__)
