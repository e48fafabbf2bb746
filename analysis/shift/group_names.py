"""Names of the groups of runs that are compared."""

ONLY = "RL"
"""Name of the group of runs where the caller names none."""

SFT = "SFT"
"""Name of the group of runs that are the dense control."""

DAPO, SIMPLE_RL = "dapo", "simplerl"
"""Names of groups, in lower case, whose comparison is the publication's."""
