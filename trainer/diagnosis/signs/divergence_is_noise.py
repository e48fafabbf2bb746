"""Divergences that rounding alone explains.

Where the floor comes from. A token's log-probability is computed twice, by passes that round differently, and the two
differ by d = log p' - log p even if the weights are the same. A number format with unit roundoff u (2^-24 for float32,
2^-11 for float16, 2^-8 for bfloat16) stores hidden states and logits with a relative error of up to u each, so d is of
the size of a few u for logits of the size of 1, and more for larger ones and deeper models. For a small d the
estimators are k1 = -d, k2 = d^2 / 2 and k3 = exp(d) - 1 - d = d^2 / 2 + O(d^3). So their means are near c u and
(c u)^2 / 2 with c of about 1 to 10: k3 of about 1e-14 in float32 and 1e-5 in bfloat16.

How much it is depends on the model, the kernels and the batch. So a training measures it, as
`divergence/noise_floor`: the mean |D| of the policy from itself, by the same two paths
(`trainer/weighting/noise_floor.py`). The derivation only says what to expect; the embedded example in float32 measures
1.8e-14, which is c = 3.
"""

from tokenshift.analysis.thresholds import CLEAR_OF_NOISE
from tokenshift.trainer.diagnosis.registry import Found, register_sign
from tokenshift.trainer.diagnosis.run_record import FEWEST_LOGS, RunRecord

MOST_CLEAR = 0.25
"""Share of the logs that may be clear of the floor where the run is still noise. The first update of a generation is
made by the rollout policy itself, so where every update is logged at least half of the logs of a run that moves are
clear of it."""


@register_sign(
    "The divergence is rounding noise",
    "The model computed twice differs from itself as much as from its reference, so weights and plots show rounding.",
)
def divergence_is_noise(run: RunRecord) -> Found | None:
    """Seen where the mean |D| is below `CLEAR_OF_NOISE` floors in nearly all logs after the warm-up.

    k1 is signed and its mean may cancel, so its 90th percentile is looked at, which noise puts at 1.6 floors: for
    normal d the mean of |d| is 0.8 and the 90th percentile 1.28 standard deviations.
    """
    floor = run.series("divergence/noise_floor").finite()
    if not len(floor):
        return None
    limit = CLEAR_OF_NOISE * floor.values[-1]
    is_k1 = run.settings.get("divergence") == "k1" or str(run.summary.get("divergence")).startswith("k1")
    name = "divergence/p90" if is_k1 else "divergence/mean"
    sizes = run.series(name).finite().after(run.warmup)
    noise = sizes.where(lambda value: abs(value) < limit)
    if len(sizes) < FEWEST_LOGS or len(noise) < (1 - MOST_CLEAR) * len(sizes):
        return None
    return Found(
        f"{name} is below {limit:.2g} nats, {CLEAR_OF_NOISE:g} times divergence/noise_floor, in {len(noise)} of "
        f"{len(sizes)} logs; its median is {sizes.median:.2g}.",
        noise.steps,
        "Let the policy move further from its reference (learning_rate, steps_per_generation, num_iterations), or "
        "compute in float32 (dtype float32, bf16 false, fp16 false).",
    )
