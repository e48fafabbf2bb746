"""Numbers about two policies: divergences of their next-token distributions, and statistics of them."""

from tokenshift.analysis.cross_sampling.criteria import register_criterion
from tokenshift.analysis.cross_sampling.engines import cross_sample
from tokenshift.analysis.divergence.from_logits import entropy, js_divergence, kl_divergence
from tokenshift.analysis.divergence.lm_head import LMHead, gathered_head
from tokenshift.analysis.divergence.token_statistics import STATISTICS, token_statistics
from tokenshift.analysis.sampling.trajectories import Trajectory
from tokenshift.analysis.shift.summary import summarise
from tokenshift.analysis.token_table.scoring import score_trajectories

__all__ = [
    "STATISTICS",
    "LMHead",
    "Trajectory",
    "cross_sample",
    "entropy",
    "gathered_head",
    "js_divergence",
    "kl_divergence",
    "register_criterion",
    "score_trajectories",
    "summarise",
    "token_statistics",
]
