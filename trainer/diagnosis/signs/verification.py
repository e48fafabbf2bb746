"""Answers whose verification was ended, or never begun."""

from tokenshift.trainer.diagnosis.registry import Found, register_sign
from tokenshift.trainer.diagnosis.run_record import RunRecord

MOST_UNVERIFIED = 0.01
"""Share of a batch's answers whose verification may be ended, or not reached. An ended one scores 0 whatever its
answer is, which is a wrong label where the answer is right: a hundredth is far below what an accuracy reward gets
wrong anyway (docs/reference/gold_answers.md)."""

ONE_A_BATCH = 1.0
"""The same as a number of answers, where the size of a batch is not known."""


@register_sign(
    "Verifications are ended or not reached",
    "An answer whose verification is ended scores 0, right or wrong; one that is not reached has no reward.",
)
def verification(run: RunRecord) -> Found | None:
    """Seen where the mean of a count over the run is above its limit.

    The counts are the mean number per call of the reward, which sees the completions of one process.
    """
    settings = run.settings
    rows = (settings.get("per_device_train_batch_size") or 0) * (settings.get("steps_per_generation") or 0)
    limit = MOST_UNVERIFIED * rows if rows else ONE_A_BATCH
    evidence, updates, options = [], set(), []
    for name, option, what in (
        ("killed", "verify_timeout", "ended at the limit"),
        ("unreached", "verify_budget or verify_workers", "not reached within the budget"),
    ):
        counts = run.series(f"verification/{name}").finite()
        # a log without the metric had none; `killed` is in every log of a generation
        generations = max(len(run.series("reward")), len(counts))
        mean = sum(counts.values) / generations if generations else 0.0
        if mean <= 0 or mean < limit:
            continue
        of = f" of {rows}" if rows else ""
        evidence.append(f"verification/{name}: {mean:.3g}{of} answers a batch were {what}, on average")
        updates |= set(counts.where(lambda count: count > 0).steps)
        options.append(option)
    if not evidence:
        return None
    return Found(
        "; ".join(evidence) + ".",
        tuple(sorted(updates)),
        f"Raise {' and '.join(options)}, or look at the answers: max_completion_length bounds the long ones.",
    )
