"""What the training runs of all tasks share; needs the extra `train`. Import from its modules."""
