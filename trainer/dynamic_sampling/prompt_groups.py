"""Groups of completions to one prompt: which of them are useful, and how one replaces another.

Shapes: R rows of all ranks, B rows of this rank, P prompts, G completions per prompt (R = P * G, a group's rows side
by side, in rank order), F reward functions. A group may be split between ranks.
"""

from collections.abc import Sequence
from enum import StrEnum
from math import gcd
from typing import Literal, NamedTuple

import torch
from torch.nn.functional import pad
from trl.trainer.utils import nanstd

from tokenshift.analysis.sampling.correctness import lowest_correct
from tokenshift.analysis.thresholds import CORRECT


class GroupOutcome(StrEnum):
    """The outcome of a prompt for which completions were generated.

    Attributes:
        KEPT: its completions differ in the reward that filters and in their summed rewards, and it is in the batch.
        ALL_RIGHT: they do not, and all of its completions are right.
        ALL_WRONG: they do not, and all of its completions are wrong; no reward is missing.
        OTHER: they do not in another way (right and wrong ones with equal sums), or it has no rewards.
        RETURNED: the batch was full before this prompt, which went back to the stream.
    """

    KEPT = "kept"
    ALL_RIGHT = "all_right"
    ALL_WRONG = "all_wrong"
    OTHER = "other"
    RETURNED = "returned"


def summed_rewards(rewards: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """TRL's reward of each row `(R,)`: the weighted sum over the functions; NaN where no function gave a reward.

    Args:
        rewards: `(R, F)` float32; NaN where a function gave no reward.
        weights: `(F,)`, the weight of each function.
    """
    summed = (rewards * weights.to(rewards.device).unsqueeze(0)).nansum(dim=1)
    summed[torch.isnan(rewards).all(dim=1)] = torch.nan
    return summed


def differing(rewards: torch.Tensor, num_generations: int) -> torch.Tensor:
    """Whether a group has two different rewards, `(P,)` bool.

    The standard deviation does not tell: eight rewards of 0.1 have one above 0 in float32.

    Args:
        rewards: `(R,)`; NaN where there is no reward.
        num_generations: G.
    """
    groups = rewards.view(-1, num_generations)
    missing = groups.isnan()
    highest = groups.masked_fill(missing, -torch.inf).amax(dim=1)
    return highest > groups.masked_fill(missing, torch.inf).amin(dim=1)


def first_given(rewards: torch.Tensor, columns: Sequence[int]) -> torch.Tensor:
    """The first reward that each row has in the given columns, `(R,)`; NaN where it has none.

    Args:
        rewards: `(R, F)`; NaN where a function gave no reward.
        columns: indices of columns, in order.
    """
    given = rewards[:, columns[0]]
    for column in columns[1:]:
        given = torch.where(given.isnan(), rewards[:, column], given)
    return given


def accuracies(column: torch.Tensor, correct_threshold: float) -> torch.Tensor:
    """1 for a right completion, 0 for a wrong one, NaN for one without a reward, from its rewards `(R,)`."""
    right = (column >= lowest_correct(correct_threshold)).to(column.dtype)
    return right.masked_fill(column.isnan(), torch.nan)


def group_outcomes(
    rewards: torch.Tensor,
    weights: torch.Tensor,
    num_generations: int,
    correct_threshold: float = CORRECT,
    *,
    metrics: Sequence[int] = (0,),
    by_accuracy: bool = False,
) -> list[GroupOutcome]:
    """The outcome of each group, P in all.

    A group is kept where its completions differ in the reward that filters. What other rewards say, such as a length
    penalty, keeps no group; but where all sums are equal, so that every advantage is 0, they keep none either.

    Args:
        rewards: `(R, F)` over all ranks; NaN where a function gave no reward.
        weights: `(F,)`, the weight of each function.
        num_generations: G.
        correct_threshold: lowest reward of a right completion.
        metrics: the column of the reward that filters; of several, the first that judged the completion counts.
        by_accuracy: whether right and wrong have to differ, and not only the values of the reward that filters.
    """
    column = first_given(rewards, metrics)
    missing = column.isnan()
    right = column >= lowest_correct(correct_threshold)
    filtering = accuracies(column, correct_threshold) if by_accuracy else column
    useful = differing(filtering, num_generations)
    useful &= differing(summed_rewards(rewards, weights), num_generations).to(useful.device)
    right, missing = right.view(-1, num_generations), missing.view(-1, num_generations)
    outcomes = []
    for kept, every_right, any_right, any_missing in zip(
        useful.tolist(),
        right.all(dim=1).tolist(),
        right.any(dim=1).tolist(),
        missing.any(dim=1).tolist(),
        strict=True,
    ):
        if kept:
            outcomes.append(GroupOutcome.KEPT)
        elif every_right:
            outcomes.append(GroupOutcome.ALL_RIGHT)
        else:
            outcomes.append(GroupOutcome.OTHER if any_right or any_missing else GroupOutcome.ALL_WRONG)
    return outcomes


def round_size(missing: int, num_generations: int, ranks: int) -> int:
    """The smallest number of groups, at least `missing`, whose rows the ranks can share equally."""
    step = ranks // gcd(ranks, num_generations)
    return -(-missing // step) * step


class Placement(NamedTuple):
    """The slots of a batch that groups of a round go to.

    Attributes:
        pairs: `(slot of the batch, group of the round)`, both ascending.
        used: number of groups of the round up to the one that filled the batch; all of them if none did.
    """

    pairs: list[tuple[int, int]]
    used: int


def placed_groups(open_slots: Sequence[int], verdicts: Sequence[GroupOutcome]) -> Placement:
    """Assign the first kept groups of a round to the first open slots; groups after the last one are not used."""
    useful = [group for group, verdict in enumerate(verdicts) if verdict is GroupOutcome.KEPT]
    pairs = list(zip(open_slots, useful, strict=False))
    return Placement(pairs, pairs[-1][1] + 1 if pairs and len(pairs) == len(open_slots) else len(verdicts))


def rows_of(groups: Sequence[int], num_generations: int) -> torch.Tensor:
    """Row indices of the given groups, in their order, `(len(groups) * G,)` int64."""
    starts = torch.tensor(groups, dtype=torch.long).unsqueeze(1) * num_generations
    return (starts + torch.arange(num_generations)).flatten()


class Padding(NamedTuple):
    """The padding that TRL gives a tensor of a generation along its last dimension."""

    side: Literal["left", "right"]
    value: float


def paddings(pad_token_id: int) -> dict[str, Padding | None]:
    """The padding of every tensor of a text generation that has one row per completion; None where it has no length.

    The mask keeps padding out of the loss unless it is infinite, as infinity times 0 is NaN. Ratios are
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

    The shorter of the two is padded. Where `padding` is None, the shapes are `(B,)` and `(n,)`. Neither argument is
    changed in place. With no rows to replace, `batch` itself is returned.
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
    """TRL's advantages for `scale_rewards="batch"`, `(R,)`, from the whole batch's summed rewards `(R,)`."""
    means = torch.nanmean(rewards.view(-1, num_generations), dim=1).repeat_interleave(num_generations)
    return torch.nan_to_num((rewards - means) / (nanstd(rewards) + 1e-4), nan=0.0)
