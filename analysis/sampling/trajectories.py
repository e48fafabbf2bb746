"""Responses to problems as token ids, along which both models are scored.

Shape legend: B trajectories, T longest prompt and completion together, N completion tokens of a batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from tokenshift.analysis.storage.parquet_files import read_parquet, write_parquet

TRAJECTORY_SCHEMA = pa.schema(
    [
        ("problem_id", pa.int64()),
        ("sample_id", pa.int64()),
        ("prompt_ids", pa.list_(pa.int32())),
        ("completion_ids", pa.list_(pa.int32())),
        ("correct", pa.bool_()),
        ("reward", pa.float64()),  # null where nothing judged, and in files that were made before
    ]
)


@dataclass(frozen=True)
class Trajectory:
    """A response to a problem.

    Attributes:
        problem_id, sample_id: number of the problem, and of the response among those to it.
        prompt_ids, completion_ids: token ids; the completion's end token, if it has one, belongs to it.
        correct: whether a verifier accepted it; None if none judged.
        reward: the verifier's reward; None if none judged, or the reward is not known.
    """

    problem_id: int
    sample_id: int
    prompt_ids: list[int]
    completion_ids: list[int]
    correct: bool | None = None
    reward: float | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class TrajectoryBatch:
    """Trajectories side by side, padded on the right.

    Attributes:
        input_ids, attention_mask: `(B, T)` int64.
        predicts: bool `(B, T)`, the positions whose next token is a completion token, N in all.
        token_ids: those next tokens, `(N,)` int64.
        images: further keyword arguments of the models' forward pass, tensors by name.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    predicts: torch.Tensor
    token_ids: torch.Tensor
    images: Mapping[str, Any] = field(default_factory=dict)


def batch_of(trajectories: Sequence[Trajectory], device: torch.device | str = "cpu") -> TrajectoryBatch:
    """Pad a batch; padding is masked, so its id does not matter.

    Raises:
        ValueError: for a trajectory without a prompt: nothing predicts its first token.
    """
    for trajectory in trajectories:
        if not trajectory.prompt_ids:
            raise ValueError(f"problem {trajectory.problem_id} has an empty prompt; give it a start token.")
    rows = [trajectory.prompt_ids + trajectory.completion_ids for trajectory in trajectories]
    length = max(map(len, rows))
    input_ids = torch.zeros(len(rows), length, dtype=torch.int64)
    attention_mask = torch.zeros_like(input_ids)
    predicts = torch.zeros_like(input_ids, dtype=torch.bool)
    for index, (row, trajectory) in enumerate(zip(rows, trajectories, strict=True)):
        input_ids[index, : len(row)] = torch.tensor(row)
        attention_mask[index, : len(row)] = 1
        predicts[index, len(trajectory.prompt_ids) - 1 : len(row) - 1] = True
    token_ids = [token for trajectory in trajectories for token in trajectory.completion_ids]
    return TrajectoryBatch(
        input_ids.to(device),
        attention_mask.to(device),
        predicts.to(device),
        torch.tensor(token_ids, dtype=torch.int64, device=device),
    )


def write_trajectories(path: Path, trajectories: Sequence[Trajectory], schema: pa.Schema = TRAJECTORY_SCHEMA) -> None:
    """Write a Parquet file that appears whole, with the columns of the schema."""
    table = pa.Table.from_pylist([asdict(trajectory) for trajectory in trajectories], schema=schema)
    write_parquet(path, table)


def read_trajectories(path: Path) -> list[Trajectory]:
    """Read what `write_trajectories` wrote."""
    return [Trajectory(**row) for row in read_parquet(path, schema=TRAJECTORY_SCHEMA).to_pylist()]
