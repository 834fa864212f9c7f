"""What the training runs of all tasks share; needs the extra `train`. Import from the modules: nothing is loaded here."""
