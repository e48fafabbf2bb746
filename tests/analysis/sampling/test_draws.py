"""Draws by common random numbers against the whole vocabulary, sorted and given noise as a whole."""

import numpy as np
import pytest
import torch

from tokenshift.analysis.sampling.draws import NARROW, coupled_draw
from tokenshift.analysis.sampling.shared_noise import gumbel_noise


def brute_force(logp: torch.Tensor, rows: list[tuple[int, int]], positions: list[int], top_p: float) -> list[int]:
    """Draws by a loop over tokens, the most probable first and of equal ones the lower id, in float32."""
    every = torch.arange(logp.shape[-1]).unsqueeze(0)
    noisy = (logp + gumbel_noise(7, rows, positions, every)).numpy()
    drawn = []
    for row, values in enumerate(logp.numpy()):
        order = np.lexsort((np.arange(len(values)), -values))
        probabilities = torch.from_numpy(values[order]).exp()
        before = (probabilities.cumsum(0) - probabilities).numpy()
        kept = [int(token) for place, token in enumerate(order) if not place or before[place] < top_p]
        kept = [token for token in kept if np.isfinite(values[token])]
        drawn.append(max(kept, key=lambda token, row=row: (noisy[row, token], -token)))
    return drawn


SHAPES = {
    "flat": lambda noise: noise * 0.0,
    "wide": lambda noise: noise * 0.5,
    "natural": lambda noise: noise * 2.0,
    "narrow": lambda noise: noise * 8.0,
    "of equal values": lambda noise: (noise * 4).round() / 4,
    "half forbidden": lambda noise: noise.masked_fill(torch.arange(noise.shape[-1]) % 2 == 0, -torch.inf),
    "one high among many": lambda noise: torch.cat([noise[:, :1] + 7, noise[:, 1:] * 0.01], dim=-1),
}


@pytest.mark.parametrize("top_p", [0.3, 0.7, 0.95, 0.999999])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [NARROW - 1, NARROW + 1, 3001])
def test_draws_are_those_of_the_whole_vocabulary(size: int, shape: str, top_p: float) -> None:
    noise = torch.randn(5, size, generator=torch.Generator().manual_seed(size))
    logp = torch.log_softmax(SHAPES[shape](noise), dim=-1)
    rows, positions = [(3, sample) for sample in range(5)], [0, 1, 2, 50, 1000]
    assert coupled_draw(logp, rows, positions, top_p=top_p, seed=7).tolist() == brute_force(
        logp, rows, positions, top_p
    )


@pytest.mark.parametrize("top_p", [0.3, 0.7, 0.95, 0.999999])
@pytest.mark.parametrize("size", [500, 3001])
def test_rows_of_all_shapes_in_one_batch(size: int, top_p: float) -> None:
    noise = torch.randn(2, size, generator=torch.Generator().manual_seed(size))
    logp = torch.log_softmax(torch.cat([shape(noise) for shape in SHAPES.values()]), dim=-1)
    rows, positions = [(row, 1) for row in range(len(logp))], list(range(len(logp)))
    drawn = coupled_draw(logp, rows, positions, top_p=top_p, seed=7)
    assert drawn.tolist() == brute_force(logp, rows, positions, top_p)


def test_a_row_is_drawn_alike_beside_others() -> None:
    logp = torch.log_softmax(torch.randn(6, 5000, generator=torch.Generator().manual_seed(1)), dim=-1)
    logp[0] = torch.log_softmax(torch.arange(5000) * 0.01, dim=-1)
    rows, positions = [(row, 0) for row in range(6)], list(range(6))
    together = coupled_draw(logp, rows, positions, top_p=0.8)
    alone = [coupled_draw(logp[[row]], rows[row : row + 1], positions[row : row + 1], top_p=0.8) for row in range(6)]
    assert together.tolist() == torch.cat(alone).tolist()
