from .activation import GoLU as GoLU
from .activation import build_activation as build_activation
from .activation import gated_golu as gated_golu
from .activation import golu as golu
from .activation import load_activation as load_activation
from .activation import register_with_transformers as register_with_transformers
from .activation import replace_activations as replace_activations
from .activation import size_per_channel as size_per_channel

__version__: str
