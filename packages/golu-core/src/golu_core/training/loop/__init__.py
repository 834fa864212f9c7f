"""A run: steps, state, log, evaluation."""
