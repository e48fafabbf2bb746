"""Figures of the shift analysis, of a shift over checkpoints, and of the probe."""
