"""Time of cross-sampling: draft-and-verify against lock-step, plain generation, and the obvious way."""

from collections.abc import Callable, Sequence

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from tokenshift.analysis.cached_policy import CachedPolicy
from tokenshift.analysis.cross_sample import cross_sample
from tokenshift.analysis.drawing import coupled_draw
from tokenshift.analysis.generation import Request, Sampling, encode_prompt, padded_left
from tokenshift.analysis.intervention import CrossResponse, Intervention, Pair, decide, take
from tokenshift.recipes.models import find_model, resolve_model
from tokenshift.recipes.pocket.problems import pocket_dataset
from tokenshift.recipes.sums import sums_dataset

DRAFT, LOCKSTEP = "cross-sampling: draft and verify", "cross-sampling: lock-step"
PLAIN, OBVIOUS = "the primary alone, own loop", "both models' generate, a token at a time"

BATCHES = {"pocket": (64, 120), "smollm2": (16, 32)}
"""Responses at once, and tokens of a response at most."""


def functions(
    model: str, rl_model: str, epsilon: float, obvious: bool = True
) -> tuple[dict[str, Callable[[], object]], str]:
    """What is timed, forward (the base decodes, RL intervenes), and what it is in words.

    Args:
        model: `pocket` or `smollm2`, the base.
        rl_model: the model after RL, a folder or a hub name.
        epsilon: JS above which RL draws.
        obvious: whether the obvious way is timed too, which is slow.
    """
    find_model("rl_model", rl_model)
    path = resolve_model(model)
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    base, rl = (AutoModelForCausalLM.from_pretrained(each).eval() for each in (path, resolve_model(rl_model)))
    pair = Pair(base.to(device), rl.to(device), AutoTokenizer.from_pretrained(path))
    size, length = BATCHES[model]
    data = pocket_dataset("analysis", size) if model == "pocket" else sums_dataset("eval", size)
    requests = [Request((n, 0), encode_prompt(pair.tokenizer, prompt)) for n, prompt in enumerate(data["prompt"])]
    sampling, plan = Sampling(1.0, 1.0, length), Intervention("js", epsilon)

    def run(engine: str) -> list[CrossResponse]:
        return cross_sample(
            pair.primary, pair.intervention, pair.tokenizer, requests, plan=plan, sampling=sampling, engine=engine
        )

    found = run("draft")
    tokens = sum(len(each.completion_ids) for each in found)
    switched, effective = (sum(map(sum, rows)) for rows in ((r.switched for r in found), (r.effective for r in found)))
    words = (
        f"{model}, batch {size}, JS > {epsilon:g}: {tokens} tokens, {100 * switched / tokens:.1f} % intervened, "
        f"{100 * effective / tokens:.1f} % effective, {device}"
    )
    timed: dict[str, Callable[[], object]] = {
        DRAFT: lambda: run("draft"),
        LOCKSTEP: lambda: run("lockstep"),
        PLAIN: lambda: alone(pair, requests, sampling),
    }
    if obvious:
        timed[OBVIOUS] = lambda: by_generate(pair, requests, sampling, plan)
    return timed, words


def alone(pair: Pair, requests: Sequence[Request], sampling: Sampling) -> list[list[int]]:
    """The primary's responses by the loop of the lock-step engine, without another policy."""
    found: list[list[int]] = [[] for _ in requests]
    ids, mask = padded_left([request.prompt_ids for request in requests], pair.pad, pair.primary.device)
    mask, policy, alive, ends = mask.bool(), CachedPolicy(pair.primary), list(range(len(requests))), pair.ends
    for position in range(sampling.max_new_tokens):
        logits = policy.append(ids, mask, keep=1)[:, 0]
        drawn = coupled_draw(logits, [requests[row].row for row in alive], [position] * len(alive), **sampling.draw)
        for row, token in zip(alive, drawn.tolist(), strict=True):
            found[row].append(token)
        going = [place for place, token in enumerate(drawn.tolist()) if token not in ends]
        if not going:
            break
        if len(going) < len(alive):
            rows = torch.tensor(going, device=ids.device)
            policy.keep(rows)
            mask, drawn, alive = mask[rows], drawn[rows], [alive[place] for place in going]
        ids = drawn.unsqueeze(-1)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
    return found


def by_generate(
    pair: Pair, requests: Sequence[Request], sampling: Sampling, plan: Intervention
) -> list[CrossResponse]:
    """As one would write it first: each model's `generate` for one token on the growing text, no cache kept."""
    found = [CrossResponse(*request.row, request.prompt_ids) for request in requests]
    config = GenerationConfig(max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True)
    config.pad_token_id = pair.pad
    alive = list(range(len(requests)))
    for position in range(sampling.max_new_tokens):
        rows = [found[row].prompt_ids + found[row].completion_ids for row in alive]
        ids, mask = padded_left(rows, pair.pad, pair.primary.device)
        p, q = (
            model.generate(input_ids=ids, attention_mask=mask, generation_config=config).logits[0]
            for model in (pair.primary, pair.intervention)
        )
        decisions = decide(p, q, [requests[row].row for row in alive], [position] * len(alive), sampling, plan)
        tokens = [take(found[row], decisions, place, True) for place, row in enumerate(alive)]
        alive = [row for row, token in zip(alive, tokens, strict=True) if token not in pair.ends]
        if not alive:
            break
    return found
