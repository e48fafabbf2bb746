"""DAPO's dynamic sampling: groups of equal rewards are replaced by those of the next prompts."""
