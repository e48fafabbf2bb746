"""Time of cross-sampling: draft-and-verify against lock-step, plain generation, and the obvious way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import GenerationConfig

from tokenshift.analysis.cross_sampling.decoding_batch import DecodingBatch
from tokenshift.analysis.cross_sampling.engines import cross_sample
from tokenshift.analysis.cross_sampling.intervention import CrossResponse, Intervention, Pair, decide, take
from tokenshift.analysis.divergence.from_logits import log_probabilities
from tokenshift.analysis.sampling.draws import coupled_draw
from tokenshift.analysis.sampling.generators import Sampling
from tokenshift.analysis.sampling.requests import Request
from tokenshift.analysis.sampling.token_ids import encode_prompt, padded_left
from tokenshift.recipes.inputs.models import find_model
from tokenshift.recipes.inputs.sums import sums_dataset
from tokenshift.recipes.pocket.problems import pocket_dataset

DRAFT, LOCKSTEP = "cross-sampling: draft and verify", "cross-sampling: lock-step"
PLAIN, OBVIOUS = "the primary alone, in the same batches", "both models' generate, a token at a time"

SHAPES = {"pocket": (256, 64, 120), "smollm2": (16, 16, 32)}
"""Responses, how many at once, and tokens of a response at most."""


@dataclass(frozen=True)
class CrossCost:
    """The functions that are timed, forward (the base decodes, RL intervenes).

    Attributes:
        functions: by what they are.
        words: the shape of the work.
        longer: tokens of the mixed responses to those of the primary alone, as a ratio.
        unequal: responses that differ between the engines.
    """

    functions: dict[str, Callable[[], object]]
    words: str
    longer: float
    unequal: int


def cross_cost(
    model: str, rl_model: str, epsilon: float, obvious: bool = True, shape: tuple[int, int, int] | None = None
) -> CrossCost:
    """
    Args:
        model: `pocket` or `smollm2`, the base.
        rl_model: the model after RL, a folder or a hub name.
        epsilon: JS above which RL draws.
        obvious: whether the obvious way is timed too, which is slow.
        shape: as in `SHAPES`, where the model's is taken when None.
    """
    sources = find_model("model", model), find_model("rl_model", rl_model)
    device = (torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None) or torch.device(
        "cpu"
    )
    base, rl = (source.load("auto", device) for source in sources)
    pair = Pair(base, rl, sources[0].tokenizer)
    size, batch, length = shape or SHAPES[model]
    data = pocket_dataset("analysis", size) if model == "pocket" else sums_dataset("eval", size)
    requests = [Request((n, 0), encode_prompt(pair.tokenizer, prompt)) for n, prompt in enumerate(data["prompt"])]
    sampling, plan = Sampling(max_new_tokens=length), Intervention("js", epsilon)

    def run(engine: str) -> list[CrossResponse]:
        models = pair.primary, pair.intervention, pair.tokenizer
        return cross_sample(*models, requests, plan=plan, sampling=sampling, engine=engine, batch_size=batch)

    draft, lockstep = run("draft"), run("lockstep")
    plain = sum(map(len, alone(pair, requests, sampling, batch)))
    tokens = sum(len(response.completion_ids) for response in draft)
    switched, effective = (sum(map(sum, rows)) for rows in ((r.switched for r in draft), (r.effective for r in draft)))
    words = (
        f"{model}, {size} responses, batch {batch}, JS > {epsilon:g}: {tokens} tokens, {plain} by the primary alone, "
        f"{100 * switched / tokens:.1f} % intervened, {100 * effective / tokens:.1f} % effective, {device}"
    )
    functions: dict[str, Callable[[], object]] = {
        DRAFT: lambda: run("draft"),
        LOCKSTEP: lambda: run("lockstep"),
        PLAIN: lambda: alone(pair, requests, sampling, batch),
    }
    if obvious:
        functions[OBVIOUS] = lambda: by_generate(pair, requests, sampling, plan, batch)
    unequal = sum(a.completion_ids != b.completion_ids for a, b in zip(draft, lockstep, strict=True))
    return CrossCost(functions, words, tokens / plain, unequal)


def alone(pair: Pair, requests: Sequence[Request], sampling: Sampling, batch_size: int) -> list[list[int]]:
    """The primary's responses by the batches of draft-and-verify, which fill up as it does."""
    completions: list[list[int]] = [[] for _ in requests]
    waiting = list(range(len(requests)))[::-1]
    first = [waiting.pop() for _ in range(min(batch_size, len(waiting)))]
    rows, ends = DecodingBatch([pair.primary], pair.pad, requests, first), pair.ends
    while rows.alive:
        mask = torch.cat([rows.mask, torch.ones_like(rows.mask[:, :1])], dim=1)
        logits = rows.policies[0].append(rows.pending.unsqueeze(-1), mask, keep=1)[:, 0]
        keys, positions = [requests[row].row for row in rows.alive], [len(completions[row]) for row in rows.alive]
        logp = log_probabilities(logits, temperature=sampling.temperature)
        tokens = coupled_draw(logp, keys, positions, **sampling.draw).tolist()
        for row, token in zip(rows.alive, tokens, strict=True):
            completions[row].append(token)
        going = [
            index
            for index, (row, token) in enumerate(zip(rows.alive, tokens, strict=True))
            if token not in ends and len(completions[row]) < sampling.max_new_tokens
        ]
        rows.go_on([1] * len(tokens), 1, going, [tokens[index] for index in going])
        if waiting:
            rows.refill(waiting, batch_size)
    return completions


def by_generate(
    pair: Pair, requests: Sequence[Request], sampling: Sampling, plan: Intervention, batch_size: int
) -> list[CrossResponse]:
    """The obvious way to write it: each model's `generate` for one token on the growing text, without a kept cache."""
    starts = range(0, len(requests), batch_size)
    return [r for start in starts for r in _by_generate(pair, requests[start : start + batch_size], sampling, plan)]


def _by_generate(
    pair: Pair, requests: Sequence[Request], sampling: Sampling, plan: Intervention
) -> list[CrossResponse]:
    responses = [CrossResponse(*request.row, request.prompt_ids) for request in requests]
    config = GenerationConfig(max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True)
    config.pad_token_id = pair.pad
    alive = list(range(len(requests)))
    for position in range(sampling.max_new_tokens):
        rows = [responses[row].prompt_ids + responses[row].completion_ids for row in alive]
        ids, mask = padded_left(rows, pair.pad, pair.primary.device)
        logits = (
            model.generate(input_ids=ids, attention_mask=mask, generation_config=config).logits[0]
            for model in (pair.primary, pair.intervention)
        )
        p, q = (log_probabilities(policy_logits, temperature=sampling.temperature) for policy_logits in logits)
        decisions = decide(p, q, [requests[row].row for row in alive], [position] * len(alive), sampling, plan)
        tokens = [take(responses[row], decisions, index, True) for index, row in enumerate(alive)]
        alive = [row for row, token in zip(alive, tokens, strict=True) if token not in pair.ends]
        if not alive:
            break
    return responses
