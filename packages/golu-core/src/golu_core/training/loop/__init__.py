"""The training loop: steps, model and optimizer state, log, and evaluation."""
