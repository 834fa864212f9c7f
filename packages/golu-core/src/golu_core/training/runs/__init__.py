"""The folder of a run: its files, checkpoints, results, and what evaluates it afterwards."""

from ..._front_door import front_door

__getattr__, __dir__ = front_door(__name__)
