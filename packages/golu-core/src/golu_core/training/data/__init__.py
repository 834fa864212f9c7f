"""Samples in an order that the seed decides: from files, images or the Hub to batches."""

from ..._front_door import front_door

__getattr__, __dir__ = front_door(__name__)
