"""Both models' statistics along trajectories, from one forward pass of each."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from transformers import PreTrainedTokenizerBase

from tokenshift.analysis.divergence.from_logits import check_sampling
from tokenshift.analysis.divergence.hidden_states import captured_hidden_states, evaluation_mode, forward_options
from tokenshift.analysis.divergence.lm_head import LMHead, gathered_head
from tokenshift.analysis.divergence.projection import Projection
from tokenshift.analysis.divergence.token_statistics import token_statistics
from tokenshift.analysis.divergence.top_k import top_k
from tokenshift.analysis.divergence.vocabulary import shared_vocabulary
from tokenshift.analysis.sampling.trajectories import Trajectory, TrajectoryBatch, batch_of
from tokenshift.analysis.token_table.schema import SCORED, build_table

TOP_ROWS = 64
"""Tokens whose whole logits are held at a time where top tokens are listed."""


@torch.no_grad()
def predicting_states(forward: Any, model: Any, batch: TrajectoryBatch) -> torch.Tensor:
    """Last hidden states `(N, H)` from which the completion tokens of a batch are predicted, in order.

    Args:
        forward: the callable that makes the forward pass: the model, or the wrapper that gathers its parameters.
        model: the causal LM under it.
        batch: on the model's device.
    """
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, **batch.images}
    with captured_hidden_states(model) as captured:
        forward(**inputs, **forward_options(model))
    states = captured[0][:, -batch.predicts.shape[1] :]  # an adapter may have put virtual tokens before the prompt
    return states[batch.predicts]


class PairScorer:
    """Scores trajectories by two models, a batch at a time.

    Args:
        base, rl: causal LMs, each on one device, of one tokenizer; their heads may be padded differently.
        tokenizer: the models' tokenizer.
        temperature: divides the logits of both, > 0.
        top_p: of the column `js_top_p`, in (0, 1].

    Attributes:
        note: a sentence for the user if the heads have different lengths, else None.

    Raises:
        ValueError: for numbers out of range, or a tokenizer with more ids than a head.
    """

    def __init__(
        self, base: Any, rl: Any, tokenizer: PreTrainedTokenizerBase, *, temperature: float = 1.0, top_p: float = 0.7
    ) -> None:
        check_sampling(temperature, top_p)
        self.base, self.rl, self.tokenizer = base, rl, tokenizer
        self.temperature, self.top_p = temperature, top_p
        with gathered_head(base) as head_base, gathered_head(rl) as head_rl:
            self._shared, self.note = shared_vocabulary(tokenizer, tokenizer, head_base.vocab_size, head_rl.vocab_size)

    def table(self, trajectories: Sequence[Trajectory], kind: str) -> pa.Table:
        """The per-token rows of trajectories that go through the models together, in their order.

        Raises:
            ValueError: for an empty prompt.
        """
        if not trajectories:
            return build_table([], {name: torch.empty(0) for name in SCORED}, self.tokenizer, kind)
        with self._states(trajectories) as (base, rl, head_base, head_rl, token_ids):
            statistics = token_statistics(
                base,
                rl,
                head_base,
                head_rl,
                token_ids,
                outputs=SCORED,
                temperature=self.temperature,
                top_p=self.top_p,
            )
        return build_table(trajectories, statistics, self.tokenizer, kind)

    def top_tokens(self, trajectory: Trajectory, k: int = 10) -> tuple[np.ndarray, np.ndarray]:
        """The most probable tokens at each of a trajectory's T positions.

        Returns:
            Ids `(2, T, k)` int32, base's and RL's, most probable first; and their log-probabilities `(2, 2, T, k)`
            float32: the first axis is the list, the second the model that gives the probability. k is at most the
            vocabulary.
        """
        parts = []
        with self._states([trajectory]) as (base, rl, head_base, head_rl, token_ids):
            size, device = min(TOP_ROWS, max(1, len(token_ids))), rl.device
            project = [Projection(head, self.temperature, size, device) for head in (head_base, head_rl)]
            k = min(k, head_base.vocab_size)
            for start in range(0, len(token_ids), size):
                logits = [
                    model(hidden[start : start + size]) for model, hidden in zip(project, (base, rl), strict=True)
                ]
                logp = [torch.log_softmax(model_logits, dim=-1) for model_logits in logits]  # (n, V)
                ids = [top_k(model_logits, k)[1] for model_logits in logits]  # (n, k)
                parts.append(
                    (torch.stack(ids), torch.stack([torch.stack([p.gather(-1, i) for p in logp]) for i in ids]))
                )
        if not parts:
            return np.zeros((2, 0, k), dtype=np.int32), np.zeros((2, 2, 0, k), dtype=np.float32)
        ids_all = torch.cat([ids for ids, _ in parts], dim=1).int().cpu().numpy()
        return ids_all, torch.cat([logp for _, logp in parts], dim=2).cpu().numpy()

    @contextmanager
    def _states(
        self, trajectories: Sequence[Trajectory]
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, LMHead, LMHead, torch.Tensor]]:
        """Hidden states `(N, H)` of base and RL on RL's device, their heads, and the tokens that followed `(N,)`."""
        batch = batch_of(trajectories, self.rl.device)
        with (
            torch.no_grad(),
            evaluation_mode(self.base),
            evaluation_mode(self.rl),
            gathered_head(self.base) as head_base,
            gathered_head(self.rl) as head_rl,
        ):
            states = predicting_states(self.base, self.base, batch_of(trajectories, self.base.device))
            yield (
                states.to(self.rl.device),
                predicting_states(self.rl, self.rl, batch),
                head_base.prefix(self._shared),
                head_rl.prefix(self._shared),
                batch.token_ids,
            )


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
        base, rl, tokenizer, temperature, top_p: as of `PairScorer`.
        trajectories: responses of any policy.
        batch_tokens: tokens in a forward pass, padding included; a longer trajectory goes alone.
        kind: value of the column `trajectory`.

    Raises:
        ValueError: for numbers out of range, an empty prompt, or a tokenizer with more ids than a head.
    """
    scorer = PairScorer(base, rl, tokenizer, temperature=temperature, top_p=top_p)
    batches = scoring_batches(trajectories, batch_tokens)
    tables = [scorer.table([trajectories[index] for index in indices], kind) for indices in batches]
    table = pa.concat_tables(tables or [scorer.table([], kind)]).unify_dictionaries()
    lengths = np.array([len(trajectory.completion_ids) for trajectory in trajectories], dtype=np.int64)
    scored = np.array([index for indices in batches for index in indices], dtype=np.int64)
    starts = np.zeros(len(lengths), dtype=np.int64)  # of each trajectory in the order of scoring
    starts[scored] = np.cumsum(lengths[scored]) - lengths[scored]
    order = [np.arange(start, start + length) for start, length in zip(starts, lengths, strict=True)]
    return table.take(pa.array(np.concatenate(order or [np.empty(0, dtype=np.int64)])))


def scoring_batches(trajectories: Sequence[Trajectory], batch_tokens: int) -> list[list[int]]:
    """Batches of indices of trajectories, the longest first: padding is little, and a lack of memory shows at once."""
    sizes = [len(trajectory.prompt_ids) + len(trajectory.completion_ids) for trajectory in trajectories]
    batches: list[list[int]] = []
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        if batches and (len(batches[-1]) + 1) * sizes[batches[-1][0]] <= batch_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
