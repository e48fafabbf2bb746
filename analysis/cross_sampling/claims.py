"""The publication's statement that the mixture can beat RL, held against a sweep (arXiv 2603.22446, section 3)."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from tokenshift.analysis.cross_sampling.recovery import REFERENCES, Policy, problem_sums
from tokenshift.analysis.cross_sampling.sweep import ENDS
from tokenshift.analysis.report.numbers import PERCENT, interval_text
from tokenshift.analysis.report.statements import FEWEST_PROBLEMS, NOT_SEEN, OPEN, SEEN, Statement
from tokenshift.analysis.statistics.best_of import best_of
from tokenshift.analysis.statistics.linearised import linearised
from tokenshift.analysis.statistics.paired import ROUNDING

MIXTURE = ("The mixture can beat RL: at some epsilon > 0 the base with RL's interventions is more accurate", "yes")

NO_POLICY = "no forward policy of a shift's criterion"


def mixture_statement(table: pa.Table) -> Statement:
    """Whether some mixed policy is more accurate than RL alone, with an interval corrected for taking the best.

    The mixed policies are those of the publication: the base decodes, and RL draws where the JS lies above a threshold
    above 0, by the first of `REFERENCES` that was swept, with no cap, extrapolation or sharpening. Verdicts on RL's
    and on the mixture's responses to a problem are paired, seeds and samples pooled. The statement is seen where the
    interval lies above 0, and not seen where it lies below; with fewer than 5 problems it is open.

    Args:
        table: the columns `COLUMNS` of `recovery`, one row per response.
    """
    sums, ids = problem_sums(table)
    criteria = [policy.criterion for policy in sums if _mixed(policy)]
    criterion = next((name for name in REFERENCES if name in criteria), None)
    policies = [policy for policy in sums if _mixed(policy) and policy.criterion == criterion]
    rl = _rl_alone(sums)
    if rl is None or not policies:
        return Statement(*MIXTURE, NO_POLICY, OPEN)
    accuracies: dict[Policy, np.ndarray] = {}
    for policy in (*policies, rl):
        accuracy = linearised(sums[policy]["correct"], sums[policy]["judged"])
        if accuracy is None:
            return Statement(*MIXTURE, "no verdicts on responses", OPEN)
        accuracies[policy] = accuracy
    best = best_of(np.stack([accuracies[policy] - accuracies[rl] for policy in policies], axis=1))
    policy = policies[best.index]
    mixed_accuracy, rl_accuracy = (f"{PERCENT * accuracies[one].mean():.1f} %" for one in (policy, rl))
    entry = {"value": best.difference, "low": best.low, "high": best.high}
    points = interval_text(entry, scale=PERCENT, digits="+.1f", unit=" points")
    thresholds = "1 threshold" if best.candidates == 1 else f"the best of {best.candidates} thresholds"
    name = f"{policy.criterion} > {policy.epsilon:.3g}"
    measured = f"{name}: {mixed_accuracy} against RL's {rl_accuracy}, {points}; {thresholds}"
    if len(ids) < FEWEST_PROBLEMS or best.low is None or best.high is None:
        return Statement(*MIXTURE, f"{measured}; of {len(ids)} problems", OPEN)
    return Statement(*MIXTURE, measured, SEEN if best.low > ROUNDING else NOT_SEEN if best.high < -ROUNDING else OPEN)


def _mixed(policy: Policy) -> bool:
    plain = policy.most is None and not policy.gamma and policy.sharpening is None
    return policy.direction == "forward" and policy.criterion not in ENDS and plain and (policy.epsilon or 0.0) > 0


def _rl_alone(policies: Iterable[Policy]) -> Policy | None:
    """The policy in which RL answers alone: the end of the forward curves, which shares its random numbers with the
    mixtures."""
    ends = (("forward", "all"), ("backward", "none"))
    plain = [policy for policy in policies if not policy.gamma and policy.sharpening is None]
    return next((policy for end in ends for policy in plain if (policy.direction, policy.criterion) == end), None)
