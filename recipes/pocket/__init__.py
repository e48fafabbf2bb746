"""Pocket, the embedded example: its arithmetic problems, how its base was made, and the base itself."""
