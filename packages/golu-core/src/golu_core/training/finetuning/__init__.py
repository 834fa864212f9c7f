"""Runs that start from initial weights, and the parts of a network that stay frozen."""

from ..._front_door import front_door

__getattr__, __dir__ = front_door(__name__)
