"""Trajectories of a probe, of which the policy chose the tokens, and a tool or an environment perhaps some others."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from tokenshift.analysis.sampling.trajectories import (
    TRAJECTORY_SCHEMA,
    Trajectory,
    TrajectoryBatch,
    batch_of,
    write_trajectories,
)
from tokenshift.analysis.storage.parquet_files import read_parquet
from tokenshift.trainer.policy.responses import replayed_rollout

CHOSEN_FIELD = pa.field("chosen", pa.list_(pa.bool_()))
"""Column that a file of trajectories has beside the analysis' if a tool or an environment wrote any token."""

NOT_FOR_THE_MODEL = {
    *("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "tool_mask", "advantages", "old_logps"),
    *("old_per_token_logps", "ref_per_token_logps", "sampling_per_token_logps", "importance_sampling_ratio"),
    *("num_items_in_batch", "num_images", "num_tiles"),
}
"""Tensors of a generation that are no input of the model; the others are its images."""


@dataclass(frozen=True)
class ProbedTrajectory(Trajectory):
    """A response whose tokens the policy chose, all or some of them.

    Attributes:
        chosen: whether the policy chose each token of the completion; None if it chose all.
    """

    chosen: list[bool] | None = None

    @property
    def chosen_count(self) -> int:
        """Number of tokens that the policy chose: those that are scored."""
        return len(self.completion_ids) if self.chosen is None else sum(self.chosen)

    def of_chosen_tokens(self) -> "ProbedTrajectory":
        """The same response with the tokens alone that the policy chose."""
        if self.chosen is None:
            return self
        ids = [token for token, mine in zip(self.completion_ids, self.chosen, strict=True) if mine]
        return replace(self, completion_ids=ids, chosen=None)


def text_batch(trajectories: Sequence[ProbedTrajectory], device: torch.device) -> TrajectoryBatch:
    """Trajectories of text, padded on the right."""
    batch = batch_of(trajectories, device)
    if all(trajectory.chosen is None for trajectory in trajectories):
        return batch
    kept = torch.tensor(
        [mine for t in trajectories for mine in (t.chosen or [True] * len(t.completion_ids))], device=device
    )  # (N,), in the order of the batch's tokens
    predicts = batch.predicts.clone()
    predicts[batch.predicts] = kept
    return replace(batch, predicts=predicts, token_ids=batch.token_ids[kept])


def image_batch(trainer: Any, rows: list[dict[str, Any]], trajectories: Sequence[ProbedTrajectory]) -> TrajectoryBatch:
    """Trajectories with images, padded and prepared as TRL does it: prompts on the left, completions on the right.

    Args:
        trainer: a GRPO or RLOO trainer in eval mode.
        rows: the problem of each trajectory, with its images.
        trajectories: the responses; the policy chose all of their tokens.
    """
    generation = replayed_rollout(
        trainer, rows, [t.prompt_ids for t in trajectories], [t.completion_ids for t in trajectories]
    )
    completion_mask = generation["completion_mask"].bool()
    length = completion_mask.shape[1]
    input_ids = torch.cat([generation["prompt_ids"], generation["completion_ids"]], dim=1)
    predicts = torch.zeros_like(input_ids, dtype=torch.bool)
    predicts[:, -length - 1 : -1] = completion_mask
    return TrajectoryBatch(
        input_ids,
        torch.cat([generation["prompt_mask"], generation["completion_mask"]], dim=1),
        predicts,
        generation["completion_ids"][completion_mask],
        {name: value for name, value in generation.items() if name not in NOT_FOR_THE_MODEL},
    )


def write_probed(path: Path, trajectories: Sequence[ProbedTrajectory]) -> None:
    """Write a Parquet file that appears whole; the analysis reads it as trajectories."""
    masked = any(trajectory.chosen is not None for trajectory in trajectories)
    write_trajectories(path, trajectories, TRAJECTORY_SCHEMA.append(CHOSEN_FIELD) if masked else TRAJECTORY_SCHEMA)


def read_probed(path: Path) -> list[ProbedTrajectory]:
    """Read what `write_probed` wrote, or a file of an earlier version, without masks."""
    return [ProbedTrajectory(**row) for row in read_parquet(path).to_pylist()]
