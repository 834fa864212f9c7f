"""The runs of a study: planned, and trained on one machine or through SLURM."""
