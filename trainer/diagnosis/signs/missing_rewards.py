"""Rewards that are missing, or that are no finite numbers."""

import math

from tokenshift.trainer.diagnosis.registry import Found, register_sign
from tokenshift.trainer.diagnosis.run_record import RunRecord

MOST_UNSCORED = 0.01
"""Share of completions that may have no reward at all. They have an advantage of 0, so a hundredth of them costs a
hundredth of the batch; a larger share has a cause, such as a wrong column or gold answers that cannot be read."""


@register_sign(
    "Rewards are missing or not finite",
    "Completions without a finite reward have no advantage: their tokens are generated and teach nothing.",
)
def missing_rewards(run: RunRecord) -> Found | None:
    """Seen where completions without any reward are more than `MOST_UNSCORED` of a log, a reward function gave a
    number that is not finite, or gave none to a whole log's completions."""
    evidence, updates = [], set()
    unscored = run.series("rewards/unscored_share").where(lambda share: share > MOST_UNSCORED)
    if len(unscored):
        evidence.append(f"up to {max(unscored.values):.0%} of a log's completions had no reward from any function")
        updates |= set(unscored.steps)
    for name in run.names(r"rewards/.+/non_finite"):
        wrong = run.series(name).where(lambda count: count > 0)
        if len(wrong):
            evidence.append(f"{name} counts {sum(wrong.values):g} completions")
            updates |= set(wrong.steps)
    for name in run.names(r"rewards/.+/mean"):
        empty = run.series(name).where(math.isnan)
        if len(empty):
            evidence.append(f"{name} is NaN in {len(empty)} logs: no completion had that reward")
            updates |= set(empty.steps)
    if not evidence:
        return None
    return Found(
        "; ".join(evidence) + ".",
        tuple(sorted(updates)),
        "Look at what reward_funcs returns for these completions; for accuracy_reward see that solution_column names "
        "gold answers that can be read (docs/reference/gold_answers.md).",
    )
