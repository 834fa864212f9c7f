"""Activations by name: built in, from torch, from a package, or from a file."""
