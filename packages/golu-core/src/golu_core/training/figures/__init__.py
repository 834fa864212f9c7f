"""Figures for a person: curves, grids of images, and tables of classes."""

from ..._front_door import front_door

__getattr__, __dir__ = front_door(__name__)
