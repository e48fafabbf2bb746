"""Completions that are cut off."""

from tokenshift.trainer.diagnosis.registry import Found, register_sign
from tokenshift.trainer.diagnosis.run_record import FEWEST_GENERATIONS, RunRecord

MOST_TRUNCATED = 0.2
"""Mean share of completions that end at `max_completion_length`, over the second half of the run. A cut-off
completion has no final answer and is rewarded as wrong whatever its reasoning is worth, which DAPO (arXiv
2503.14476) calls reward noise. At one in five, a group of 8 has such a completion in 83 % of cases (1 - 0.8^8). The
value is this project's."""


@register_sign(
    "Many completions are cut off",
    "Completions that reach max_completion_length have no final answer and count as wrong, however good they were.",
)
def truncation(run: RunRecord) -> Found | None:
    """Seen where `completions/clipped_ratio` is above `MOST_TRUNCATED` over the second half; early on it may fall."""
    cut = run.series("completions/clipped_ratio").finite()
    half = cut.last(1 / 2)
    if len(cut) < FEWEST_GENERATIONS or half.mean <= MOST_TRUNCATED:
        return None
    length = run.settings.get("max_completion_length")
    at = f" at max_completion_length={length}" if length else ""
    return Found(
        f"completions/clipped_ratio is {half.mean:.2f} on average in the second half of the run{at}.",
        half.where(lambda value: value > MOST_TRUNCATED).steps,
        "Raise max_completion_length; or set mask_truncated_completions to true, or add get_soft_overlong_punishment "
        "to reward_funcs. If texts never end, see that the tokenizer's end token is the one that the model was "
        "trained to write.",
    )
