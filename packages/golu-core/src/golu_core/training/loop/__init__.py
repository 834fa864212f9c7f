"""The training loop: steps, model and optimizer state, log, evaluation, and losses of tokens."""

from ..._front_door import front_door

__getattr__, __dir__ = front_door(__name__)
