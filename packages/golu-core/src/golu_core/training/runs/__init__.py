"""The run folder: its files, checkpoints, result and failure, and the finished run that is read from it."""

from ..._front_door import front_door

__getattr__, __dir__ = front_door(__name__)
