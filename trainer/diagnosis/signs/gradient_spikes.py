"""Single updates with a gradient far larger than the run's."""

from statistics import median

from tokenshift.trainer.diagnosis.registry import Found, register_sign
from tokenshift.trainer.diagnosis.run_record import FEWEST_LOGS, RunRecord

SPIKE = 10.0
"""A gradient norm above this many medians of the norms around it is a spike. SPAM (arXiv 2501.06842), which studies
spikes in the training of language models, takes squared gradients of more than 50 times their running mean, norms of
more than 7; the norms of small batches in RL scatter more (up to 7 medians in the embedded example)."""

WINDOW = 10
"""Logs on each side that the median is taken of."""

FEWEST_SPIKES = 2
"""A single spike, which max_grad_norm bounds, is not told of."""


@register_sign(
    "The gradient norm has spikes",
    "Single batches move the policy, and Adam's moments for many updates after them, in a direction of their own.",
)
def gradient_spikes(run: RunRecord) -> Found | None:
    """Seen where at least `FEWEST_SPIKES` logs have a `grad_norm` above `SPIKE` medians of the logs around them."""
    norms = run.series("grad_norm").finite().where(lambda norm: norm > 0)  # 0: no group taught anything
    if len(norms) < FEWEST_LOGS:
        return None
    spikes = []
    for place, (step, norm) in enumerate(zip(norms.steps, norms.values, strict=True)):
        around = median(norms.values[max(0, place - WINDOW) : place + WINDOW + 1])
        if norm > SPIKE * around:
            spikes.append((step, norm, around))
    if len(spikes) < FEWEST_SPIKES:
        return None
    step, norm, around = max(spikes, key=lambda spike: spike[1] / spike[2])
    return Found(
        f"{len(spikes)} of {len(norms)} logs; the largest grad_norm is {norm:.3g} at update {step}, where the median "
        f"around it is {around:.3g}.",
        tuple(step for step, _, _ in spikes),
        _way(run, median(norms.values)),
    )


def _way(run: RunRecord, typical: float) -> str:
    bound = run.settings.get("max_grad_norm")
    if isinstance(bound, int | float) and 0 < bound <= SPIKE * typical:
        more = f"max_grad_norm={bound:g} bounds them already; "
    else:
        more = f"Set max_grad_norm to about {2 * typical:.1g}, twice the median; "
    return (
        more + "if the reward falls with them, lower learning_rate or raise the batch (gradient_accumulation_steps)."
    )
