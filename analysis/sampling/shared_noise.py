"""Random numbers that belong to a token at a place of a response, whatever else is sampled beside it.

A token is drawn as `argmax(log p + g)` with standard Gumbel noise g, which is a draw from p. With noise that depends
on (seed, problem, sample, position, token) alone, a run is the same for every batch size, batch order and number of
processes, and two policies that share the noise draw the same token wherever their distributions allow it.

The noise of a place is the stream of SplitMix64 (Steele, Lea, Flood 2014) from a state that is mixed from the place's
numbers; the token's id is the index in the stream, so that noise can be had for a few tokens alone.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch

Row = tuple[int, int]
"""(problem_id, sample_id)"""

_MASK = 2**64 - 1
_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def _signed(value: int) -> int:
    """The int64 of the same bits."""
    return value - 2**64 if value >= 2**63 else value


def _mixed(value: int) -> int:
    """SplitMix64's output for a state, in Python's integers."""
    value = ((value ^ (value >> 30)) * _FIRST) & _MASK
    value = ((value ^ (value >> 27)) * _SECOND) & _MASK
    return value ^ (value >> 31)


def mixed_seed(*numbers: int | Row) -> int:
    """64 bits mixed from a seed, a row, and what else tells a place apart."""
    state = 0
    for number_or_row in numbers:
        for number in number_or_row if isinstance(number_or_row, tuple) else (number_or_row,):
            state = _mixed((state + _GOLDEN + number) & _MASK)
    return state


def _xor_shifted(values: torch.Tensor, bits: int) -> torch.Tensor:
    """`v ^ (v >> bits)`, the shift logical; in place."""
    return values.bitwise_xor_((values >> bits).bitwise_and_(2 ** (64 - bits) - 1))


def _mixed_tensor(values: torch.Tensor) -> torch.Tensor:
    """`_mixed` of each, in place; int64 wraps as it must."""
    values = _xor_shifted(values, 30).mul_(_signed(_FIRST))
    values = _xor_shifted(values, 27).mul_(_signed(_SECOND))
    return _xor_shifted(values, 31)


@lru_cache(maxsize=2**16)
def _first_state(seed: int, row: Row) -> int:
    """State of a response's first place."""
    return _signed((mixed_seed(seed, row) + _GOLDEN) & _MASK)


def gumbel_noise(seed: int, rows: Sequence[Row], positions: Sequence[int], token_ids: torch.Tensor) -> torch.Tensor:
    """Noise `(B, k)` float32 of k tokens at each of B places, on their device.

    Args:
        seed: >= 0; another one gives other noise everywhere.
        rows: (problem_id, sample_id) of each place.
        positions: of each place in its completion, from 0.
        token_ids: int64 `(B, k)`, or `(1, k)` for the same tokens everywhere.
    """
    states = torch.tensor(
        [_first_state(seed, row) for row in rows], dtype=torch.int64, device=token_ids.device
    )  # (B,)
    states = _mixed_tensor(states + torch.tensor(positions, dtype=torch.int64, device=token_ids.device))
    values = _mixed_tensor(states.unsqueeze(-1) + (token_ids + 1) * _signed(_GOLDEN))  # (B, k)
    bits = (values >> 11).bitwise_and_(2**53 - 1)
    uniform = bits.double().add_(0.5).mul_(2.0**-53)  # in (0, 1); float64, since the tail decides
    return uniform.neg_().log1p_().neg_().log_().neg_().float()
