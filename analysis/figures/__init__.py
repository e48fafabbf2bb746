"""Parts that all figures share: the style, the building blocks, and the curves of a training."""
