"""The kinds of a reproduction's parts."""

TRAININGS, SFT, SHIFT, EVOLUTION, CROSS, ROBUSTNESS = "trainings", "sft", "shift", "evolution", "cross", "robustness"
"""The kinds of parts."""

OPTIONAL = (SHIFT, EVOLUTION, CROSS, ROBUSTNESS)
"""The kinds that may be left out, since no other part reads what they leave."""
