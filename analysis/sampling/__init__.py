"""From prompts to responses: requests, draws with shared random numbers, generators, trajectories."""
