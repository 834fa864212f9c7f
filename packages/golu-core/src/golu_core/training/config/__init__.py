"""The configuration of a run: its fields and their types, optimizers, schedules, and the run's identity."""

from ..._front_door import front_door

__getattr__, __dir__ = front_door(__name__)
