"""The run stopped at an update whose numbers were not finite."""

import re

from tokenshift.trainer.diagnosis.registry import Found, register_sign
from tokenshift.trainer.diagnosis.run_record import RunRecord

POST_MORTEM = re.compile(r"update_(\d+)_rank_\d+\.pt")
"""Name of a file that a refused update leaves in `post_mortem/` (`trainer/guard/post_mortem.py`)."""


@register_sign(
    "An update was refused: its numbers were not finite",
    "The loss, a gradient or what they are made of was NaN or infinite, and the run ended before that update.",
)
def refused_update(run: RunRecord) -> Found | None:
    """Seen where the newest refused update was not made afterwards, by a run that went on from a checkpoint."""
    if run.folder is None:
        return None
    names = (POST_MORTEM.fullmatch(file.name) for file in (run.folder / "post_mortem").glob("*.pt"))
    updates = sorted({int(found[1]) for found in names if found})
    if not updates or updates[-1] <= max(run.steps, default=0):
        return None
    return Found(
        f"post_mortem/ holds the batch of update {updates[-1]}.",
        (),
        "Lower learning_rate, or train in float32 or bfloat16 instead of float16; the line that ended the run names "
        "the first quantity that was not finite. --resume_from_checkpoint true goes on from the last checkpoint.",
    )
