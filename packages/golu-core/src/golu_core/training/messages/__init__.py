"""What a person reads: errors, printed lines, progress bars."""

from ..._front_door import front_door

__getattr__, __dir__ = front_door(__name__)
