"""Studies: many runs of the golu packages, on one machine or through SLURM."""
