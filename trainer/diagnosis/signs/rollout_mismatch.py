"""A rollout engine whose probabilities are not the trainer's."""

from tokenshift.trainer.diagnosis.registry import Found, register_sign
from tokenshift.trainer.diagnosis.run_record import FEWEST_LOGS, RunRecord

DIFFERENCE = "sampling/sampling_logp_difference/mean"

MOST_DIFFERENT = 0.1
"""Mean |log p (trainer) - log p (engine)| of a sampled token, in nats. Rounding in bfloat16 alone gives a standard
deviation of 0.03 to 0.055 for a model of 0.5B parameters (measured in huggingface/trl issue 6789 and
ServiceNow/Fast-LLM pull request 525), so a mean of 0.025 to 0.045. At 0.1 a token's ratio is off by a tenth, half of a
clip range of 0.2, before the policy has moved at all."""


@register_sign(
    "The rollout engine disagrees with the trainer",
    "Completions are sampled from other probabilities than the loss takes them for: ratios are off from the start.",
)
def rollout_mismatch(run: RunRecord) -> Found | None:
    """Seen where the difference that TRL logs with vLLM is above `MOST_DIFFERENT` in the median, or in the last fifth.

    TRL logs it with `vllm_importance_sampling_correction` alone.
    """
    difference = run.series(DIFFERENCE).finite()
    if len(difference) < FEWEST_LOGS:
        return None
    late = difference.last(1 / 5)
    if max(difference.median, late.median) <= MOST_DIFFERENT:
        return None
    truncates = [
        f"{name}={run.settings[name]}"
        for name, off in (("top_p", 1.0), ("top_k", 0), ("min_p", 0.0))
        if run.settings.get(name) not in (off, None)
    ]
    way = (
        f"The engine truncates what it samples from ({', '.join(truncates)}), the trainer does not: leave these out. "
        if truncates
        else "See that the engine has the trainer's weights, temperature and precision (dtype; a quantized engine "
        "or cache differs). "
    )
    return Found(
        f"{DIFFERENCE}: median {difference.median:.3g} nats, {late.median:.3g} in the last fifth.",
        difference.where(lambda value: value > MOST_DIFFERENT).steps,
        way + "Keep vllm_importance_sampling_correction on meanwhile.",
    )
