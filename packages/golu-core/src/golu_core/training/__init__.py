"""The front door for task packages: what all training runs share. It needs the extra `train`.

The names are listed in `__init__.pyi`, and change only with a deprecation. The rooms have doors of their own, such as
`golu_core.training.storage`, whose names may change in any minor version.
"""

from .._front_door import front_door

__getattr__, __dir__ = front_door(__name__)
