"""Activations by name: built in, of torch, of a package, of a file."""
