"""What a task's package registers, and its command line."""

from ..._front_door import front_door

__getattr__, __dir__ = front_door(__name__)
