"""Numbers about two policies: divergences of their next-token distributions, and statistics of them."""

from tokenshift.analysis.cross_sample import cross_sample
from tokenshift.analysis.divergence import entropy, js_divergence, kl_divergence
from tokenshift.analysis.lm_head import LMHead, gathered_head
from tokenshift.analysis.scoring import score_trajectories
from tokenshift.analysis.statistics import STATISTICS, token_statistics
from tokenshift.analysis.summary import summarise
from tokenshift.analysis.trajectories import Trajectory

__all__ = [
    "STATISTICS",
    "LMHead",
    "Trajectory",
    "cross_sample",
    "entropy",
    "gathered_head",
    "js_divergence",
    "kl_divergence",
    "score_trajectories",
    "summarise",
    "token_statistics",
]
