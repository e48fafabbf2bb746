"""From trajectories to the per-token table: scoring, writing and reading."""
