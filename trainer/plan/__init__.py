"""What a training will need, computed before anything is loaded: memory by part and phase, tokens, time."""
