"""Columns of weights in the completions table: each completion's mean and largest, over the updates made on it."""

from collections import deque
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

WeightSums = list[float]  # [sum of weights, tokens weighted, largest weight]


def _blank() -> WeightSums:
    return [0.0, 0.0, float("-inf")]


@dataclass
class CompletionWeights:
    """Rows in step with TRL's completions table, which keeps the last `rows` completions of all ranks, in rank order.

    Attributes:
        rows: length of TRL's table, `generation_batch_size`.
        prefix: of the two columns' names.
        local: this rank's completions of the generation in training, in the order they were generated.
    """

    rows: int
    prefix: str = "weight"
    local: list[WeightSums] = field(default_factory=list)
    _table: deque[WeightSums] = field(init=False)
    _current: list[WeightSums] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._table = deque(maxlen=self.rows)

    def start_generation(self, local_size: int, accelerator: Accelerator, training: bool) -> None:
        """Open rows for new completions, `local_size` of them on every rank; those of an evaluation stay blank."""
        cells = [_blank() for _ in range(local_size * accelerator.num_processes)]
        self._table.extend(cells)
        if training:
            self._current = cells
            self.local = [_blank() for _ in range(local_size)]

    def add(self, index: torch.Tensor, weights: torch.Tensor, mask: torch.Tensor) -> None:
        """Count an update's weights `(B, T)` on the valid tokens `mask` `(B, T)` of completions `index` `(B,)`."""
        if not self.local:  # completions restored from a checkpoint are not in TRL's table
            return
        totals = (weights * mask).sum(dim=1, dtype=torch.float64)
        largest = weights.masked_fill(~mask, float("-inf")).amax(dim=1)
        rows = zip(index.tolist(), totals.tolist(), mask.sum(dim=1).tolist(), largest.tolist(), strict=True)
        for row, total, count, highest in rows:
            cell = self.local[row]
            cell[0] += total
            cell[1] += count
            cell[2] = max(cell[2], highest)

    def columns(self) -> dict[str, list[float | None]]:
        """The two columns, one value per row of TRL's table; None where a completion had no update or no valid token.

        Communicates: every rank must call it.
        """
        for cell, gathered in zip(self._current, gather_object(self.local), strict=True):
            cell[:] = gathered
        return {
            f"{self.prefix}_mean": [total / count if count else None for total, count, _ in self._table],
            f"{self.prefix}_max": [highest if count else None for _, count, highest in self._table],
        }
