"""Are the tokens that RL moved the cause of its gain: one policy decodes, the other one intervenes."""
