"""Cross-sampling as speculative decoding does it: most positions never switch, so whole blocks are decided at once.

The primary drafts a block of tokens; the intervention reads the block in one forward pass; up to the first effective
replacement the draft is what token-by-token decoding gives, and the rest is dropped. The caches of both policies have
the same slots: dropped tokens are masked.

Shape legend: b rows still going, n tokens of a block, V vocabulary.
"""

from collections.abc import Sequence

import torch

from tokenshift.analysis.cached_policy import CachedPolicy
from tokenshift.analysis.drawing import coupled_draw
from tokenshift.analysis.generation import Request, Sampling, padded_left
from tokenshift.analysis.intervention import CrossResponse, Intervention, Pair, decide, take

LONGEST_BLOCK = 32
FIRST_BLOCK = 8

READING, ROUND = 0.25, 1.0
"""What reading a token of a block costs the intervention, and what a round costs beside, in steps of the primary."""


def block_length(cut_rate: float) -> int:
    """The length that yields most tokens for its cost, if each token is replaced with probability `cut_rate`."""

    def worth(length: int) -> float:
        kept = length if cut_rate == 0 else (1 - (1 - cut_rate) ** length) / cut_rate
        return kept / (length * (1 + READING) + ROUND)

    return max(range(1, LONGEST_BLOCK + 1), key=worth)


def decode(pair: Pair, requests: Sequence[Request], sampling: Sampling, plan: Intervention) -> list[CrossResponse]:
    """A response to each request; arguments as of `cross_sample`."""
    found = [CrossResponse(*request.row, request.prompt_ids) for request in requests]
    ids, mask = padded_left([request.prompt_ids for request in requests], pair.pad, pair.primary.device)
    mask = mask.bool()
    primary, intervention = CachedPolicy(pair.primary), CachedPolicy(pair.intervention)
    if ids.shape[1] > 1:  # all of the prompt but its last token, which each block begins with
        for policy in (primary, intervention):
            policy.append(ids[:, :-1], mask[:, :-1], keep=0)
    pending = ids[:, -1]  # (b,)
    mask = mask[:, :-1]
    alive = list(range(len(requests)))
    replaced = [0] * len(requests)
    decided = cuts = 0
    while alive:
        left = sampling.max_new_tokens - min(len(found[row].completion_ids) for row in alive)
        # a cut is counted in where there is none yet: the first blocks are not all as long as can be
        length = min(left, block_length((cuts + 0.5) / decided) if decided else FIRST_BLOCK)
        block, drafted, logits_primary = _draft(primary, pending, mask, length, found, alive, pair, sampling)
        logits = intervention.append(block, torch.cat([mask, torch.ones_like(block, dtype=torch.bool)], 1), length)
        rows = [requests[row].row for row in alive for _ in range(length)]
        starts = [len(found[row].completion_ids) for row in alive]
        decisions = decide(
            logits_primary.flatten(0, 1),
            logits[..., : pair.vocabulary].flatten(0, 1),
            rows,
            [start + step for start in starts for step in range(length)],
            sampling,
            plan,
            drafted.flatten(),
        )
        valid = torch.zeros_like(block, dtype=torch.bool)
        going, last = [], []
        for place, row in enumerate(alive):
            response = found[row]
            for step in range(min(length, sampling.max_new_tokens - starts[place])):
                free = plan.most is None or replaced[row] < plan.most
                token = take(response, decisions, place * length + step, free)
                cut = token != response.primary_ids[-1]
                replaced[row] += cut
                decided += 1
                cuts += cut
                valid[place, step] = True
                if cut or token in pair.ends:
                    break
            if response.completion_ids[-1] not in pair.ends and len(response.completion_ids) < sampling.max_new_tokens:
                going.append(place)
                last.append(response.completion_ids[-1])
        mask = torch.cat([mask, valid], dim=1)
        if len(going) < len(alive):
            kept = torch.tensor(going, dtype=torch.int64, device=ids.device)
            mask, alive = mask[kept], [alive[place] for place in going]
            if alive:
                primary.keep(kept)
                intervention.keep(kept)
        pending = torch.tensor(last, dtype=torch.int64, device=ids.device)
    return found


def _draft(
    primary: CachedPolicy,
    pending: torch.Tensor,
    mask: torch.Tensor,
    length: int,
    found: Sequence[CrossResponse],
    alive: Sequence[int],
    pair: Pair,
    sampling: Sampling,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The primary's next `length` draws after each row's pending token.

    Returns:
        What both policies read, `(b, length)`: the pending tokens and all draws but the last; the draws, `(b,
        length)`; and the logits they were drawn from, `(b, length, V)`.
    """
    read, drawn, logits = [pending], [], []
    keys = [(found[row].problem_id, found[row].sample_id) for row in alive]
    for step in range(length):
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        logits.append(primary.append(read[-1].unsqueeze(-1), mask, keep=1)[:, 0, : pair.vocabulary])
        positions = [len(found[row].completion_ids) + step for row in alive]
        drawn.append(coupled_draw(logits[-1], keys, positions, **sampling.draw))
        read.append(drawn[-1])
    return torch.stack(read[:-1], dim=1), torch.stack(drawn, dim=1), torch.stack(logits, dim=1)
