"""Both models' statistics along trajectories, from one forward pass of each."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import torch
from transformers import PreTrainedTokenizerBase

from tokenshift.analysis.hidden_states import captured_hidden_states
from tokenshift.analysis.lm_head import gathered_head
from tokenshift.analysis.statistics import token_statistics
from tokenshift.analysis.table import SCORED, build_table
from tokenshift.analysis.tokenizers import shared_vocabulary
from tokenshift.analysis.trajectories import Trajectory, TrajectoryBatch, batch_of


@torch.no_grad()
def predicting_states(forward: Any, model: Any, batch: TrajectoryBatch) -> torch.Tensor:
    """Last hidden states `(N, H)` from which the completion tokens of a batch are predicted, in order.

    Args:
        forward: what is called: the model, or the wrapper that gathers its parameters.
        model: the causal LM under it.
        batch: on the model's device.
    """
    with captured_hidden_states(model) as captured:
        forward(input_ids=batch.input_ids, attention_mask=batch.attention_mask, **forward_options(model))
    return captured[0][batch.predicts]


def forward_options(model: Any) -> dict[str, Any]:
    """Keyword arguments that spare a forward pass its cache and, where the model can, all logits but a row."""
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    spares = "logits_to_keep" in inspect.signature(inner.forward).parameters
    return {"use_cache": False, **({"logits_to_keep": 1} if spares else {})}


@contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Every module in eval mode, and back to the mode that each was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def score_trajectories(
    base: Any,
    rl: Any,
    trajectories: Sequence[Trajectory],
    tokenizer: PreTrainedTokenizerBase,
    *,
    temperature: float = 1.0,
    top_p: float = 0.7,
    batch_tokens: int = 8192,
    kind: str = "rl",
) -> pa.Table:
    """The per-token table of trajectories, scored by both models, rows in the trajectories' order.

    Args:
        base, rl: causal LMs, each on one device, of one tokenizer; their heads may be padded differently.
        trajectories: responses of whichever policy.
        tokenizer: the models'.
        temperature: divides the logits of both, > 0.
        top_p: of the column `js_top_p`, in (0, 1].
        batch_tokens: tokens in a forward pass, padding included; a longer trajectory goes alone.
        kind: for the column `trajectory`.

    Raises:
        ValueError: for numbers out of range, an empty prompt, or a tokenizer with more ids than a head.
    """
    statistics: list[dict[str, torch.Tensor]] = [{} for _ in trajectories]
    with evaluation_mode(base), evaluation_mode(rl), gathered_head(base) as head_base, gathered_head(rl) as head_rl:
        shared, _ = shared_vocabulary(tokenizer, tokenizer, head_base.vocab_size, head_rl.vocab_size)
        for places in _batches(trajectories, batch_tokens):
            part = [trajectories[place] for place in places]
            batch = batch_of(part, rl.device)
            states = predicting_states(base, base, batch_of(part, base.device)).to(rl.device)
            found = token_statistics(
                states,
                predicting_states(rl, rl, batch),
                head_base.prefix(shared),
                head_rl.prefix(shared),
                batch.token_ids,
                outputs=SCORED,
                temperature=temperature,
                top_p=top_p,
            )
            lengths = [len(trajectory.completion_ids) for trajectory in part]
            for name, values in found.items():
                for place, own in zip(places, values.cpu().split(lengths), strict=True):
                    statistics[place][name] = own
    columns = {name: torch.cat([own[name] for own in statistics] or [torch.empty(0)]) for name in SCORED}
    return build_table(trajectories, columns, tokenizer, kind)


def _batches(trajectories: Sequence[Trajectory], batch_tokens: int) -> Iterator[list[int]]:
    """Places of trajectories of about one length, the longest first: little padding, and memory runs out at once."""
    sizes = [len(trajectory.prompt_ids) + len(trajectory.completion_ids) for trajectory in trajectories]
    batch: list[int] = []
    for place in sorted(range(len(sizes)), key=lambda place: -sizes[place]):
        if batch and (len(batch) + 1) * sizes[batch[0]] > batch_tokens:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
