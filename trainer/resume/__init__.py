"""Checkpoints that appear whole, signals, and whether a launch is what was asked for."""
