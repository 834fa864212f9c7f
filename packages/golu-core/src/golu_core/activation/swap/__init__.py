"""The activations that a model calls, and how to replace them."""
