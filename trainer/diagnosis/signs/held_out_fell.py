"""A model that is worse on held-out problems than its base."""

from tokenshift.trainer.diagnosis.registry import Found, register_sign
from tokenshift.trainer.diagnosis.run_record import RunRecord


@register_sign(
    "The held-out score fell",
    "On problems that it was not trained on the trained model is worse than its base.",
)
def held_out_fell(run: RunRecord) -> Found | None:
    """Seen where the 95 % interval of the score afterwards lies below the whole interval before."""
    before, after = run.summary.get("before"), run.summary.get("after")
    if not isinstance(before, dict) or not isinstance(after, dict):
        return None
    numbers = [score.get(name) for score in (before, after) for name in ("mean", "low", "high")]
    if not all(isinstance(number, int | float) for number in numbers) or not after["high"] < before["low"]:
        return None
    first, second = (f"{s['mean']:.3g} [{s['low']:.3g}, {s['high']:.3g}]" for s in (before, after))
    return Found(
        f"before {first}, after {second} (95 %).",
        (),
        "Lower learning_rate or max_steps, or take an earlier checkpoint (save_steps, tokenshift evaluate); see that "
        "training and held-out problems ask for the same kind of answer.",
    )
