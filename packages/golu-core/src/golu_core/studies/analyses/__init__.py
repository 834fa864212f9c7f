"""The paper's analyses, for any activation and any finished run."""
