"""Files: read with checks, written whole or not at all, locked, marked as ours, and removed only if they are."""

from ..._front_door import front_door

__getattr__, __dir__ = front_door(__name__)
