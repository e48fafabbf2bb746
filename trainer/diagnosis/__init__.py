"""What looks wrong in a training's logs, and what to change. It loads no model, and imports neither torch nor TRL."""
