"""GoLU itself: function, module, registry of activations, and replacing a model's activations. It needs only torch.

Names are loaded when first used, so that a command line can check an activation's name without importing torch.
"""

from .._front_door import front_door

__getattr__, __dir__ = front_door(__name__)
