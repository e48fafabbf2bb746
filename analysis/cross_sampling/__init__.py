"""Are the tokens that RL moved the cause of its gain: one policy decodes, the other one intervenes.

The shipped criteria are registered before a user's.
"""

from tokenshift.analysis.cross_sampling import criteria as criteria
