"""How a token's advantage is weighted. The shipped weightings and divergences are registered before a user's."""

from tokenshift.trainer.weighting import weights as weights
