"""Export: weights for other programs, with a model card."""

from ..._front_door import front_door

__getattr__, __dir__ = front_door(__name__)
