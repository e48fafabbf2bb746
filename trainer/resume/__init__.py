"""Atomic checkpoints, signals that end a run with one, and the check of a launch against its command."""
