"""Processes, devices, and the signals that stop a run."""

from ..._front_door import front_door

__getattr__, __dir__ = front_door(__name__)
