"""A task: what its package registers, its command line, and the block that a run prints first."""

from ..._front_door import front_door

__getattr__, __dir__ = front_door(__name__)
