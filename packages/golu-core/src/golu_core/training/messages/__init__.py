"""Messages for a person: errors with their exit statuses, printed lines, and progress bars."""

from ..._front_door import front_door

__getattr__, __dir__ = front_door(__name__)
