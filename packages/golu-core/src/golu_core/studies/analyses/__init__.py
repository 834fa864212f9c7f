"""What activations and finished runs look like inside: the paper's analyses, on any activation and any run folder."""
