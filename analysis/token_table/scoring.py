"""Both models' statistics along trajectories, from one forward pass of each."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import torch
from transformers import PreTrainedTokenizerBase

from tokenshift.analysis.divergence.from_logits import check_sampling
from tokenshift.analysis.divergence.lm_head import LMHead
from tokenshift.analysis.divergence.projection import Projection
from tokenshift.analysis.divergence.token_statistics import token_statistics
from tokenshift.analysis.divergence.top_k import top_k
from tokenshift.analysis.divergence.vocabulary import shared_vocabulary
from tokenshift.analysis.sampling.trajectories import Trajectory
from tokenshift.analysis.token_table.model_states import StatesReader, Vocabulary, check_ids, check_lengths
from tokenshift.analysis.token_table.schema import SCORED, build_table

TOP_ROWS = 64
"""Tokens whose whole logits are held at a time where top tokens are listed."""


class Scorer(Protocol):
    """Anything that scores trajectories by two models; `PairScorer` by transformers, `EngineScorer` by vLLM."""

    def table(self, trajectories: Sequence[Trajectory], kind: str) -> pa.Table:
        """The per-token rows of trajectories, in their order."""

    def top_tokens(self, trajectory: Trajectory, k: int = 10) -> tuple[np.ndarray, np.ndarray]:
        """Ids `(2, T, k)` and log-probabilities `(2, 2, T, k)` of the most probable tokens at each position."""


class PairStates(NamedTuple):
    """Hidden states and LM heads of two models for N tokens, all on one device.

    Attributes:
        base, rl: hidden states `(N, H)`; H may differ.
        head_base, head_rl: LM heads of equally many tokens.
        token_ids: `(N,)` int64, the tokens that followed.
    """

    base: torch.Tensor
    rl: torch.Tensor
    head_base: LMHead
    head_rl: LMHead
    token_ids: torch.Tensor


class StatesScorer(ABC):
    """Scores trajectories by two models' hidden states, a batch at a time.

    Args:
        tokenizer: the models' tokenizer.
        base, rl: the models' tokens.
        temperature: divides the logits of both, > 0.
        top_p: of the column `js_top_p`, in (0, 1].

    Attributes:
        note: a sentence for the user if the heads have different lengths, else None.

    Raises:
        ValueError: for numbers out of range, or a tokenizer with more ids than a head.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, base: Vocabulary, rl: Vocabulary, temperature: float, top_p: float
    ) -> None:
        check_sampling(temperature, top_p)
        self.tokenizer, self.temperature, self.top_p = tokenizer, temperature, top_p
        self._vocabularies = base, rl
        self._shared, self.note = shared_vocabulary(tokenizer, tokenizer, base.head, rl.head)

    @abstractmethod
    def _states(self, trajectories: Sequence[Trajectory]) -> AbstractContextManager[PairStates]:
        """Both models' hidden states and LM heads for the trajectories' tokens."""

    def table(self, trajectories: Sequence[Trajectory], kind: str) -> pa.Table:
        """The per-token rows of trajectories that go through the models together, in their order.

        Raises:
            ValueError: for an empty prompt, more tokens than a model reads, a token that a model does not have, or a
                model whose own logits are not what its head makes of its states.
        """
        if not trajectories:
            return build_table([], {name: torch.empty(0) for name in SCORED}, self.tokenizer, kind)
        with self._states(trajectories) as pair:
            statistics = token_statistics(*pair, outputs=SCORED, temperature=self.temperature, top_p=self.top_p)
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

    def _together(
        self,
        base: tuple[torch.Tensor, LMHead],
        rl: tuple[torch.Tensor, LMHead],
        trajectories: Sequence[Trajectory],
    ) -> PairStates:
        """States and heads of both models on the device of RL's, and the tokens that followed."""
        (states_base, head_base), (states_rl, head_rl) = base, rl
        shared = min(self._shared, head_base.vocab_size, head_rl.vocab_size)
        device = states_rl.device
        token_ids = [token for trajectory in trajectories for token in trajectory.completion_ids]
        return PairStates(
            states_base.to(device),
            states_rl,
            head_base.prefix(shared).on(device),
            head_rl.prefix(shared).on(device),
            torch.tensor(token_ids, dtype=torch.int64, device=device),
        )


class PairScorer(StatesScorer):
    """Scores trajectories by two models that are both loaded, a batch at a time.

    Args:
        base, rl: causal LMs of one tokenizer, each on one device or spread over several by a `device_map`; their heads
            may be padded differently.
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
        self.base, self.rl = base, rl
        self._readers = of_base, of_rl = StatesReader(base), StatesReader(rl)
        super().__init__(tokenizer, of_base.vocabulary, of_rl.vocabulary, temperature, top_p)

    @contextmanager
    def _states(self, trajectories: Sequence[Trajectory]) -> Iterator[PairStates]:
        check_lengths(trajectories, (self.base, self.rl))
        check_ids(trajectories, self._vocabularies, self._shared)
        base, rl = self._readers
        with base.states(trajectories) as of_base, rl.states(trajectories) as of_rl:
            yield self._together(of_base, of_rl, trajectories)


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
