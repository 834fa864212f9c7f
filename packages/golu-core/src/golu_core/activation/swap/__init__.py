"""Which activations a model calls, and how they are replaced."""
