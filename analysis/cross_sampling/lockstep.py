"""Cross-sampling token by token, as it is defined; faster engines are tested against it."""

from collections.abc import Sequence

import torch

from tokenshift.analysis.cross_sampling.cached_policy import CachedPolicy, UncachedPolicy
from tokenshift.analysis.cross_sampling.intervention import CrossResponse, Intervention, Pair, decide, take
from tokenshift.analysis.divergence.from_logits import log_probabilities
from tokenshift.analysis.divergence.placement import input_device
from tokenshift.analysis.sampling.generators import Sampling
from tokenshift.analysis.sampling.requests import Request
from tokenshift.analysis.sampling.token_ids import padded_left


def decode(
    pair: Pair, requests: Sequence[Request], sampling: Sampling, plan: Intervention, batch_size: int
) -> list[CrossResponse]:
    """A response to each request, `batch_size` at a time; the arguments are those of `cross_sample`."""
    starts = range(0, len(requests), batch_size)
    return [
        response
        for start in starts
        for response in _decode(pair, requests[start : start + batch_size], sampling, plan, CachedPolicy)
    ]


def decode_by_length(
    pair: Pair,
    requests: Sequence[Request],
    sampling: Sampling,
    plan: Intervention,
    batch_size: int,
    *,
    policy_class: type[CachedPolicy] | type[UncachedPolicy],
) -> list[CrossResponse]:
    """Decode as `decode` does, without padding: prompts of one length at a time, read by policies of a class."""
    by_length: dict[int, list[int]] = {}
    for index, request in enumerate(requests):
        by_length.setdefault(len(request.prompt_ids), []).append(index)
    responses: dict[int, CrossResponse] = {}
    for indices in by_length.values():
        for start in range(0, len(indices), batch_size):
            batch = indices[start : start + batch_size]
            decoded = _decode(pair, [requests[index] for index in batch], sampling, plan, policy_class)
            responses.update(zip(batch, decoded, strict=True))
    return [responses[index] for index in range(len(requests))]


def _decode(
    pair: Pair,
    requests: Sequence[Request],
    sampling: Sampling,
    plan: Intervention,
    policy_class: type[CachedPolicy] | type[UncachedPolicy],
) -> list[CrossResponse]:
    responses = [CrossResponse(*request.row, request.prompt_ids) for request in requests]
    replaced = [0] * len(requests)
    ids, mask = padded_left([request.prompt_ids for request in requests], pair.pad, input_device(pair.primary))
    mask = mask.bool()
    policies = policy_class(pair.primary), policy_class(pair.intervention)
    alive, ends = list(range(len(requests))), pair.ends
    for position in range(sampling.max_new_tokens):
        p, q = (
            log_probabilities(
                policy.append(ids, mask, keep=1)[:, 0, : pair.vocabulary], temperature=sampling.temperature
            )
            for policy in policies
        )  # (b, V)
        decisions = decide(p, q, [requests[row].row for row in alive], [position] * len(alive), sampling, plan)
        tokens = []
        for index, row in enumerate(alive):
            free = plan.most is None or replaced[row] < plan.most
            tokens.append(take(responses[row], decisions, index, free))
            replaced[row] += responses[row].switched[-1] and tokens[-1] != responses[row].primary_ids[-1]
        going = [index for index, token in enumerate(tokens) if token not in ends]
        if not going:
            break
        if len(going) < len(alive):
            rows = torch.tensor(going, device=ids.device)
            for policy in policies:
                policy.keep(rows)
            mask, alive = mask[rows], [alive[index] for index in going]
        ids = torch.tensor([[tokens[index]] for index in going], device=ids.device)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
    return responses
