"""Random numbers that belong to a token of a response, whatever else is sampled beside it.

A token is drawn as `argmax(log p + g)` with standard Gumbel noise g, which is a draw from p. With noise that depends
on (seed, problem, sample, position) alone, a run is the same for every batch size, batch order and number of
processes, and two policies that share the noise draw the same token wherever their distributions allow it.
"""

from collections.abc import Sequence

import numpy as np
import torch

BLOCK_NUMBERS = 8192
"""Numbers made at once for a response: as many positions as fit."""

Row = tuple[int, int]
"""(problem_id, sample_id)"""


class GumbelNoise:
    """Noise by (problem, sample, position), from the counter-based generator Philox.

    Args:
        seed: >= 0; another one gives other noise everywhere.
        vocab_size: V, numbers a position.
    """

    def __init__(self, seed: int, vocab_size: int) -> None:
        self.seed, self.vocab_size = seed, vocab_size
        self._positions = max(1, BLOCK_NUMBERS // vocab_size)
        self._blocks: dict[Row, tuple[int, np.ndarray]] = {}  # the last block of each response

    def __call__(self, rows: Sequence[Row], positions: Sequence[int]) -> torch.Tensor:
        """Noise `(B, V)` float32 of B tokens, on CPU.

        Args:
            rows: (problem_id, sample_id) of each, >= 0.
            positions: of each in its completion, from 0.
        """
        out = np.empty((len(rows), self.vocab_size), dtype=np.float32)
        for place, (row, position) in enumerate(zip(rows, positions, strict=True)):
            block, offset = divmod(position, self._positions)
            if (held := self._blocks.get(row)) is None or held[0] != block:
                held = self._blocks[row] = block, self._make(row, block)
            out[place] = held[1][offset]
        return torch.from_numpy(out)

    def forget(self, rows: Sequence[Row]) -> None:
        """Free what is held for responses that are done."""
        for row in rows:
            self._blocks.pop(row, None)

    def _make(self, row: Row, block: int) -> np.ndarray:
        """`(positions, V)`: minus the log of exponential numbers, in float64, since the tail decides."""
        generator = np.random.Generator(np.random.Philox(key=[self.seed, 0], counter=[0, block, row[0], row[1]]))
        numbers = generator.standard_exponential((self._positions, self.vocab_size))
        return -np.log(np.maximum(numbers, np.finfo(np.float64).tiny)).astype(np.float32)
