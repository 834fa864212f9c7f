"""What the training runs of all tasks share; needs the extra `train`.

This is the front door: the names that a task's package uses first. The rooms behind it have doors of their own, as
`golu_core.training.storage`, and what a room exports is in its `__init__.pyi`.
"""

from .._front_door import front_door

__getattr__, __dir__ = front_door(__name__)
