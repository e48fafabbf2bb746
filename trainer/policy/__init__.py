"""Measurements of a policy during training that leave it undisturbed: its responses and its held-out score."""
