"""Common random numbers: noise that belongs to a token at a position of a response, whatever is sampled beside it.

A token is drawn as `argmax(log p + g)` with standard Gumbel noise g, which is a draw from p. With noise that depends
on (seed, problem, sample, position, token) alone, a run is the same for every batch size, batch order and number of
processes, and two policies that share the noise draw the same token wherever their distributions allow it.

The noise of a position is a stream of SplitMix64 (Steele, Lea, Flood 2014). Its state is mixed from the seed, the
problem, the sample and the position; the token's id is the index in the stream, so that noise can be computed for a
few tokens alone.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch

Row = tuple[int, int]
"""(problem_id, sample_id) of a response."""

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
    """A seed of 64 bits mixed from several numbers: a seed, a row, and whatever else tells two streams apart."""
    state = 0
    for number_or_row in numbers:
        for number in number_or_row if isinstance(number_or_row, tuple) else (number_or_row,):
            state = _mixed((state + _GOLDEN + number) & _MASK)
    return state


def _xor_shifted(values: torch.Tensor, bits: int) -> torch.Tensor:
    """`v ^ (v >> bits)`, the shift logical; in place."""
    return values.bitwise_xor_((values >> bits).bitwise_and_(2 ** (64 - bits) - 1))


def _mixed_tensor(values: torch.Tensor) -> torch.Tensor:
    """`_mixed` of every value, in place; int64 wraps around as it must."""
    values = _xor_shifted(values, 30).mul_(_signed(_FIRST))
    values = _xor_shifted(values, 27).mul_(_signed(_SECOND))
    return _xor_shifted(values, 31)


@lru_cache(maxsize=2**16)
def _first_state(seed: int, row: Row) -> int:
    """The state of the stream at a response's first position."""
    return _signed((mixed_seed(seed, row) + _GOLDEN) & _MASK)


@lru_cache(maxsize=16)
def _states(seed: int, rows: tuple[Row, ...], offsets: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """States `(B,)` of streams before a position that all share is added: the same from token to token of a batch, so
    that nothing is sent to the device for them."""
    states = [_signed((_first_state(seed, row) + offset) & _MASK) for row, offset in zip(rows, offsets, strict=True)]
    return torch.tensor(states, dtype=torch.int64, device=device)


def gumbel_noise(seed: int, rows: Sequence[Row], positions: Sequence[int], token_ids: torch.Tensor) -> torch.Tensor:
    """Gumbel noise `(B, k)` float32 of k tokens at each of B positions, on the tokens' device.

    Args:
        seed: >= 0; another seed gives other noise everywhere.
        rows: (problem_id, sample_id) of the B responses.
        positions: the position in each response's completion, from 0.
        token_ids: int64 `(B, k)`, or `(1, k)` for the same tokens everywhere.
    """
    if not len(rows):
        return torch.empty(0, token_ids.shape[-1], device=token_ids.device)
    first = positions[0]
    offsets = tuple(position - first for position in positions)
    states = _mixed_tensor(_states(seed, tuple(rows), offsets, token_ids.device) + first)
    values = _mixed_tensor(states.unsqueeze(-1) + (token_ids + 1) * _signed(_GOLDEN))  # (B, k)
    bits = (values >> 11).bitwise_and_(2**53 - 1)
    uniform = bits.double().add_(0.5).mul_(2.0**-53)  # in (0, 1); float64, since the tail decides
    return uniform.neg_().log1p_().neg_().log_().neg_().float()
