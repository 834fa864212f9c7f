"""What a run is: its configuration, the types of its fields, optimizers, schedules, and their identity."""

from ..._front_door import front_door

__getattr__, __dir__ = front_door(__name__)
