"""Both models' statistics along trajectories, from one forward pass of each."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch
from transformers import PreTrainedTokenizerBase

from tokenshift.analysis.divergence.from_logits import check_sampling
from tokenshift.analysis.divergence.hidden_states import evaluation_mode, head_inputs, model_name
from tokenshift.analysis.divergence.lm_head import LMHead, gathered_head
from tokenshift.analysis.divergence.own_logits import fitted_head
from tokenshift.analysis.divergence.projection import Projection
from tokenshift.analysis.divergence.token_statistics import token_statistics
from tokenshift.analysis.divergence.top_k import top_k
from tokenshift.analysis.divergence.vocabulary import shared_vocabulary
from tokenshift.analysis.sampling.plain_reading import check_causal
from tokenshift.analysis.sampling.token_ids import context_length, context_reason
from tokenshift.analysis.sampling.trajectories import Trajectory, TrajectoryBatch, batch_of
from tokenshift.analysis.token_table.schema import SCORED, build_table

TOP_ROWS = 64
"""Tokens whose whole logits are held at a time where top tokens are listed."""

PADDING_ROUNDING, PADDING_ROUNDING_HALF = 1e-3, 0.2
"""Relative change of a trajectory's states by padding that is rounding alone, in float32 and in 16 bits."""


def predicting_states(forward: Any, model: Any, head: LMHead, batch: TrajectoryBatch) -> tuple[torch.Tensor, LMHead]:
    """States `(N, H)` from which the completion tokens of a batch are predicted, in order, and the head to use.

    Args:
        forward: the callable that makes the forward pass: the model, or the wrapper that gathers its parameters.
        model: the causal LM under it.
        head: its LM head, whole.
        batch: on the model's device.

    Raises:
        ValueError: if the model's own logits are not what any known form of its head makes of the states.
    """
    states, fitted = fitted_head(
        model, head, head_inputs(forward, model, batch.input_ids, batch.attention_mask, **batch.images)
    )
    return states[batch.predicts], fitted


def depends_on_padding(forward: Any, model: Any, batch: TrajectoryBatch, states: torch.Tensor) -> bool:
    """Whether a batch's most padded trajectory has other states when it goes through the model alone.

    Args:
        forward, model: as of `predicting_states`.
        batch: of text, padded on the right, on the model's device.
        states: those `(N, H)` of the batch.
    """
    counts, lengths = batch.predicts.sum(dim=1), batch.attention_mask.sum(dim=1)  # (B,)
    row = int(torch.where(counts > 0, lengths, batch.attention_mask.shape[1] + 1).argmin())
    length, start, count = int(lengths[row]), int(counts[:row].sum()), int(counts[row])
    ids = batch.input_ids[row : row + 1, :length]
    inputs = head_inputs(forward, model, ids, torch.ones_like(ids))
    if not count:
        return False
    together = states[start : start + count].float()
    alone = inputs.candidates[0][0][batch.predicts[row, :length]].float()
    rounding = PADDING_ROUNDING if inputs.dtype == torch.float32 else PADDING_ROUNDING_HALF
    return float((alone - together).norm()) > rounding * float(together.norm())


def check_lengths(trajectories: Sequence[Trajectory], models: Sequence[Any]) -> None:
    """Refuse trajectories that a model has no positions for.

    Raises:
        ValueError: for the longest one, if it has more tokens than a model reads.
    """
    lengths = [len(trajectory.prompt_ids) + len(trajectory.completion_ids) for trajectory in trajectories]
    longest = max(lengths, default=0)
    for model in models:
        context = context_length(model.config)
        if context is not None and longest > context:
            problem = trajectories[lengths.index(longest)].problem_id
            raise ValueError(
                f"A trajectory of problem {problem} has {longest} tokens, but the model reads {context}"
                f"{context_reason(model.config)}: leave it out ({model_name(model)!r})."
            )


class Scorer(Protocol):
    """Anything that scores trajectories by two models; `PairScorer` by transformers, `EngineScorer` by vLLM."""

    def table(self, trajectories: Sequence[Trajectory], kind: str) -> pa.Table:
        """The per-token rows of trajectories, in their order."""

    def top_tokens(self, trajectory: Trajectory, k: int = 10) -> tuple[np.ndarray, np.ndarray]:
        """Ids `(2, T, k)` and log-probabilities `(2, 2, T, k)` of the most probable tokens at each position."""


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
        self._takes_padding: dict[str, bool] = {}  # base and rl: whether padding leaves its states alone, once known
        with gathered_head(base) as head_base, gathered_head(rl) as head_rl:
            self._shared, self.note = shared_vocabulary(tokenizer, tokenizer, head_base.vocab_size, head_rl.vocab_size)

    def table(self, trajectories: Sequence[Trajectory], kind: str) -> pa.Table:
        """The per-token rows of trajectories that go through the models together, in their order.

        Raises:
            ValueError: for an empty prompt, more tokens than a model reads, a token that a model does not have, or a
                model whose own logits are not what its head makes of its states.
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
        check_lengths(trajectories, (self.base, self.rl))
        self._check_ids(trajectories)
        with (
            torch.no_grad(),
            evaluation_mode(self.base),
            evaluation_mode(self.rl),
            gathered_head(self.base) as head_base,
            gathered_head(self.rl) as head_rl,
        ):
            for model in (self.base, self.rl):
                check_causal(model)
            states_base, head_base = self._model_states("base", self.base, head_base, trajectories)
            states_rl, head_rl = self._model_states("rl", self.rl, head_rl, trajectories)
            shared = min(self._shared, head_base.vocab_size, head_rl.vocab_size)
            yield (
                states_base.to(self.rl.device),
                states_rl,
                head_base.prefix(shared),
                head_rl.prefix(shared),
                batch_of(trajectories, self.rl.device).token_ids,
            )

    def _model_states(
        self, name: str, model: Any, head: LMHead, trajectories: Sequence[Trajectory]
    ) -> tuple[torch.Tensor, LMHead]:
        """One model's states `(N, H)` and the head that fits them; without padding where the model needs that."""
        batch = batch_of(trajectories, model.device)
        padded = not batch.attention_mask.all() and len(batch.token_ids)
        if not padded or self._takes_padding.get(name, True):
            states, fitted = predicting_states(model, model, head, batch)
            if padded and name not in self._takes_padding:
                self._takes_padding[name] = not depends_on_padding(model, model, batch, states)
            if not padded or self._takes_padding[name]:
                return states, fitted
        parts = []
        for trajectory in trajectories:
            states, head = predicting_states(model, model, head, batch_of([trajectory], model.device))
            parts.append(states)
        return torch.cat(parts), head

    def _check_ids(self, trajectories: Sequence[Trajectory]) -> None:
        """Raise ValueError for a token that one of the models does not have."""
        sizes = [embeddings.num_embeddings for model in (self.base, self.rl) if (embeddings := _embeddings(model))]
        for trajectory in trajectories:
            for ids, size in (
                (trajectory.prompt_ids, min(sizes, default=None)),
                (trajectory.completion_ids, self._shared),
            ):
                largest = max(ids, default=0)
                if size is not None and largest >= size:
                    raise ValueError(
                        f"Problem {trajectory.problem_id} has token {largest}, but only the first {size} are in both "
                        "models: these trajectories are of another tokenizer, or tokens were added to one model "
                        "alone; resize the other (resize_token_embeddings, save_pretrained) to compare them."
                    )


def _embeddings(model: Any) -> torch.nn.Embedding | None:
    embeddings = model.get_input_embeddings()
    return embeddings if isinstance(embeddings, torch.nn.Embedding) else None


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
        ValueError: for numbers out of range, an empty prompt, a trajectory of more tokens than a model reads, a
            tokenizer with more ids than a head, a token that a model does not have, or a model whose own logits are
            not what its head makes of its states.
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
