"""Finds signs of trouble in a training's logs, and says what to change. It imports neither torch nor TRL."""
