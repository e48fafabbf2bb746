"""Groups of completions to one prompt: which of them teach anything, and how one takes another's place in a batch.

Shapes: R rows of all ranks, B of this rank, P prompts, G completions a prompt (R = P * G, the group's rows side by
side, in rank order), F reward functions. A group may straddle ranks.
"""

from collections.abc import Sequence
from enum import StrEnum
from math import gcd
from typing import Literal, NamedTuple

import torch
from torch.nn.functional import pad
from trl.trainer.utils import nanstd


class GroupOutcome(StrEnum):
    """What became of a prompt that was generated on.

    Attributes:
        KEPT: its rewards differ, and it is in the batch.
        ALL_RIGHT: its rewards are equal, and the first reward of every completion is 1.
        ALL_WRONG: its rewards are equal, and the first reward of no completion is 1; none is missing.
        OTHER: its rewards are equal in another way (right and wrong ones with equal sums), or it has none at all.
        RETURNED: the batch was full before it; the prompt went back to the stream.
    """

    KEPT = "kept"
    ALL_RIGHT = "all_right"
    ALL_WRONG = "all_wrong"
    OTHER = "other"
    RETURNED = "returned"


def summed_rewards(rewards: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """TRL's reward of each row `(R,)` from those of each function `(R, F)`; NaN where every function gave none.

    Args:
        rewards: float32; NaN where a function gave none.
        weights: `(F,)`.
    """
    summed = (rewards * weights.to(rewards.device).unsqueeze(0)).nansum(dim=1)
    summed[torch.isnan(rewards).all(dim=1)] = torch.nan
    return summed


def differing(rewards: torch.Tensor, num_generations: int) -> torch.Tensor:
    """Whether a group has two rewards that are not the same number, `(P,)` bool; `rewards` `(R,)`, NaN is no reward.

    A standard deviation would not tell: that of eight times 0.1 is not 0 in float32.
    """
    groups = rewards.view(-1, num_generations)
    missing = groups.isnan()
    highest = groups.masked_fill(missing, -torch.inf).amax(dim=1)
    return highest > groups.masked_fill(missing, torch.inf).amin(dim=1)


def group_outcomes(rewards: torch.Tensor, weights: torch.Tensor, num_generations: int) -> list[GroupOutcome]:
    """A verdict a group, from the rewards of all ranks `(R, F)` and the functions' weights `(F,)`.

    Right is a first reward of 1, as everywhere in this project.
    """
    first = rewards[:, 0].view(-1, num_generations)
    right, known = first == 1, ~first.isnan()
    found = []
    for useful, every_right, any_right, all_known in zip(
        differing(summed_rewards(rewards, weights), num_generations).tolist(),
        right.all(dim=1).tolist(),
        right.any(dim=1).tolist(),
        known.all(dim=1).tolist(),
        strict=True,
    ):
        if useful:
            found.append(GroupOutcome.KEPT)
        elif every_right:
            found.append(GroupOutcome.ALL_RIGHT)
        else:
            found.append(GroupOutcome.OTHER if any_right or not all_known else GroupOutcome.ALL_WRONG)
    return found


def round_size(missing: int, num_generations: int, ranks: int) -> int:
    """The fewest groups, `missing` or more, whose rows every rank can share equally."""
    step = ranks // gcd(ranks, num_generations)
    return -(-missing // step) * step


class Placement(NamedTuple):
    """Which groups of a round go where.

    Attributes:
        pairs: `(slot of the batch, group of the round)`, both ascending.
        used: groups of the round up to the one that filled the batch; all, if none did.
    """

    pairs: list[tuple[int, int]]
    used: int


def place(open_slots: Sequence[int], verdicts: Sequence[GroupOutcome]) -> Placement:
    """The first useful groups of a round for the first open slots of the batch; what follows them is not used."""
    useful = [group for group, verdict in enumerate(verdicts) if verdict is GroupOutcome.KEPT]
    pairs = list(zip(open_slots, useful, strict=False))
    return Placement(pairs, pairs[-1][1] + 1 if pairs and len(pairs) == len(open_slots) else len(verdicts))


def rows_of(groups: Sequence[int], num_generations: int) -> torch.Tensor:
    """The rows of some groups, in their order, `(len(groups) * G,)` int64."""
    starts = torch.tensor(groups, dtype=torch.long).unsqueeze(1) * num_generations
    return (starts + torch.arange(num_generations)).flatten()


class Padding(NamedTuple):
    """How TRL pads a tensor of a generation along its last dimension."""

    side: Literal["left", "right"]
    value: float


def paddings(pad_token_id: int) -> dict[str, Padding | None]:
    """How every tensor that a generation of text has a row of for each completion is padded; None: it has no length.

    No value reaches the loss through the mask; but an infinite one would, as infinity times 0. Ratios are
    `exp(logp - old)` and `exp(ref - logp)`, so `old` is padded by the highest log-probability, `ref` by a low one.
    """
    return {
        "prompt_ids": Padding("left", pad_token_id),
        "prompt_mask": Padding("left", 0),
        "completion_ids": Padding("right", pad_token_id),
        "completion_mask": Padding("right", 0),
        "tool_mask": Padding("right", 1),
        "old_per_token_logps": Padding("right", 0.0),
        "sampling_per_token_logps": Padding("right", 0.0),
        "ref_per_token_logps": Padding("right", -1e4),
        "importance_sampling_ratio": Padding("right", 1.0),
        "advantages": None,
    }


def replace_rows(
    batch: torch.Tensor, fresh: torch.Tensor, to: torch.Tensor, source: torch.Tensor, padding: Padding | None
) -> torch.Tensor:
    """`batch` `(B, L)` with rows `to` `(k,)` taken from rows `source` `(k,)` of `fresh` `(n, M)`: `(B, max(L, M))`.

    The shorter is padded; without a length, both are `(B,)` and `(n,)`. Neither is changed. With no rows to replace,
    `batch` itself.
    """
    if not len(to):
        return batch
    fresh = fresh[source.to(fresh.device)]
    if padding is not None:
        width = max(batch.shape[1], fresh.shape[1])
        batch, fresh = (_widened(tensor, width, padding) for tensor in (batch, fresh))
    replaced = batch.clone()
    replaced[to.to(batch.device)] = fresh
    return replaced


def _widened(tensor: torch.Tensor, width: int, padding: Padding) -> torch.Tensor:
    more = width - tensor.shape[1]
    return pad(tensor, (more, 0) if padding.side == "left" else (0, more), value=padding.value)


def batch_scaled_advantages(rewards: torch.Tensor, num_generations: int) -> torch.Tensor:
    """TRL's advantages for `scale_rewards="batch"`, `(R,)`, from the summed rewards of the whole batch `(R,)`."""
    means = torch.nanmean(rewards.view(-1, num_generations), dim=1).repeat_interleave(num_generations)
    return torch.nan_to_num((rewards - means) / (nanstd(rewards) + 1e-4), nan=0.0)
