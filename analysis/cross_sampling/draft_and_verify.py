"""Cross-sampling as speculative decoding does it: most positions never switch, so whole blocks are decided at once.

The primary drafts a block of tokens; the intervention reads the block in one forward pass; up to the first effective
replacement the draft is what token-by-token decoding gives, and the rest is dropped. The caches of both policies have
the same slots: dropped tokens are masked.

Shape legend: b rows still going, n tokens of a block, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tokenshift.analysis.cross_sampling.decoding_batch import DecodingBatch
from tokenshift.analysis.cross_sampling.intervention import CrossResponse, Intervention, Pair, decide, take
from tokenshift.analysis.divergence.from_logits import log_probabilities
from tokenshift.analysis.sampling.draws import coupled_draw
from tokenshift.analysis.sampling.generators import Sampling
from tokenshift.analysis.sampling.requests import Request

LONGEST_BLOCK = 32

READING, ROUND = 0.2, 0.8
"""Costs in steps of the primary: of a token that the intervention reads in a block, and of a round beside."""


class CutModel:
    """Estimates the probability that a drafted token will be replaced, from the tokens that were.

    A token is seldom replaced where the primary was sure of it: the chance is taken as `rate * (1 - p)` for a token
    that the primary drew with probability p.
    """

    def __init__(self) -> None:
        self._cuts, self._doubt = 1.0, 4.0  # as if one of four tokens in doubt had been replaced

    @property
    def rate(self) -> float:
        """The factor of 1 - p in the chance that a drafted token is replaced, at most 1."""
        return min(1.0, self._cuts / self._doubt)

    def learn(self, cuts: int, doubt: float) -> None:
        """Take in decided tokens.

        Args:
            cuts: the number that were replaced.
            doubt: the sum of 1 - p over all of them.
        """
        self._cuts, self._doubt = 0.98 * self._cuts + cuts, 0.98 * self._doubt + doubt


def goes_on(survivals: Sequence[float]) -> bool:
    """Whether to draft another token, by what a block of its length yields for its cost.

    Args:
        survivals: for each token drafted so far, the share of rows in which everything up to it is expected to stay
            and the response to go on.
    """
    yielded = sum((1.0, *survivals[:-1]))  # a token counts if what is before it stays
    return survivals[-1] / (1 + READING) > yielded / (len(survivals) * (1 + READING) + ROUND)


def decode(
    pair: Pair, requests: Sequence[Request], sampling: Sampling, plan: Intervention, batch_size: int
) -> list[CrossResponse]:
    """A response to each request, `batch_size` at a time; one that ends makes room for the next.

    The arguments are those of `cross_sample`.
    """
    responses = [CrossResponse(*request.row, request.prompt_ids) for request in requests]
    replaced = [0] * len(requests)
    waiting = list(range(len(requests)))[::-1]
    ends, cut_model = pair.ends, CutModel()
    first = [waiting.pop() for _ in range(min(batch_size, len(waiting)))]
    rows = DecodingBatch((pair.primary, pair.intervention), pair.pad, requests, first)
    end_ids = torch.tensor(sorted(ends), device=rows.pending.device)
    while rows.alive:
        draft = _draft(rows, responses, pair, sampling, cut_model.rate, end_ids)
        length = draft.read.shape[1]
        seen = torch.cat([rows.mask, torch.ones_like(draft.read, dtype=torch.bool)], dim=1)
        logits = rows.policies[1].append(draft.read, seen, keep=length)[..., : pair.vocabulary]
        starts = [len(responses[row].completion_ids) for row in rows.alive]
        decisions = decide(
            draft.logp.flatten(0, 1),
            log_probabilities(logits, temperature=sampling.temperature).flatten(0, 1),
            [requests[row].row for row in rows.alive for _ in range(length)],
            [start + step for start in starts for step in range(length)],
            sampling,
            plan,
            draft.drawn.flatten(),
        )
        doubts = draft.doubts.tolist()
        kept_lengths, going, last = [], [], []
        cuts, doubt = 0, 0.0
        for index, row in enumerate(rows.alive):
            response = responses[row]
            for step in range(min(length, sampling.max_new_tokens - starts[index])):
                may = plan.most is None or replaced[row] < plan.most
                token = take(response, decisions, index * length + step, may)
                cut = token != response.primary_ids[-1]
                replaced[row] += cut
                cuts += cut
                doubt += doubts[index][step]
                if cut or token in ends:
                    break
            kept_lengths.append(len(response.completion_ids) - starts[index])
            if response.completion_ids[-1] not in ends and len(response.completion_ids) < sampling.max_new_tokens:
                going.append(index)
                last.append(response.completion_ids[-1])
        cut_model.learn(cuts, doubt)
        rows.go_on(kept_lengths, length, going, last)
        if waiting:
            rows.refill(waiting, batch_size)
    return responses


@dataclass(frozen=True)
class _Draft:
    """A block that the primary drafted.

    Attributes:
        read: `(b, n)`, what both policies read: each row's pending token, and all draws but the last.
        drawn: `(b, n)`, the draws.
        logp: `(b, n, V)`, log-probabilities that they were drawn from, not truncated.
        doubts: `(b, n)`, 1 - p of the draws.
    """

    read: torch.Tensor
    drawn: torch.Tensor
    logp: torch.Tensor
    doubts: torch.Tensor


def _draft(
    rows: DecodingBatch,
    responses: Sequence[CrossResponse],
    pair: Pair,
    sampling: Sampling,
    rate: float,
    ends: torch.Tensor,
) -> _Draft:
    """Draw after each row's pending token until another step would yield too little."""
    read = [rows.pending]
    drawn: list[torch.Tensor] = []
    logps: list[torch.Tensor] = []
    doubts: list[torch.Tensor] = []
    keys = [(responses[row].problem_id, responses[row].sample_id) for row in rows.alive]
    starts = [len(responses[row].completion_ids) for row in rows.alive]
    surviving = torch.ones(len(keys), device=rows.pending.device)  # (b,)
    survivals: list[float] = []
    mask, longest = rows.mask, min(LONGEST_BLOCK, sampling.max_new_tokens - min(starts))
    while len(drawn) < longest and (not survivals or goes_on(survivals)):
        mask = torch.cat([mask, torch.ones_like(rows.pending, dtype=torch.bool).unsqueeze(-1)], dim=1)
        logits = rows.policies[0].append(read[-1].unsqueeze(-1), mask, keep=1)[:, 0, : pair.vocabulary]
        logp = log_probabilities(logits, temperature=sampling.temperature)  # (b, V)
        logps.append(logp)
        drawn.append(coupled_draw(logp, keys, [start + len(drawn) for start in starts], **sampling.draw))
        read.append(drawn[-1])
        doubts.append(1 - logp.gather(-1, drawn[-1].unsqueeze(-1)).squeeze(-1).exp())
        surviving = surviving * (1 - rate * doubts[-1]) * ~torch.isin(drawn[-1], ends)
        survivals.append(float(surviving.mean()))
    return _Draft(*(torch.stack(steps, dim=1) for steps in (read[:-1], drawn, logps, doubts)))
