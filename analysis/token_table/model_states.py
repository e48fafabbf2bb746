"""One model's hidden states along trajectories, and the LM head that makes its own logits of them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from tokenshift.analysis.divergence.hidden_states import evaluation_mode, head_inputs, model_name
from tokenshift.analysis.divergence.lm_head import LMHead, gathered_head
from tokenshift.analysis.divergence.own_logits import fitted_head
from tokenshift.analysis.divergence.placement import input_device
from tokenshift.analysis.sampling.plain_reading import check_causal
from tokenshift.analysis.sampling.token_ids import context_length, context_reason
from tokenshift.analysis.sampling.trajectories import Trajectory, TrajectoryBatch, batch_of

PADDING_ROUNDING, PADDING_ROUNDING_HALF = 1e-3, 0.2
"""Relative change of a trajectory's states by padding that is rounding alone, in float32 and in 16 bits."""


def predicting_states(forward: Any, model: Any, head: LMHead, batch: TrajectoryBatch) -> tuple[torch.Tensor, LMHead]:
    """States `(N, H)` from which the completion tokens of a batch are predicted, in order, and the head to use.

    Both are on the head's device.

    Args:
        forward: the callable that makes the forward pass: the model, or the wrapper that gathers its parameters.
        model: the causal LM under it.
        head: its LM head, whole.
        batch: on the device of the model's inputs.

    Raises:
        ValueError: if the model's own logits are not what any known form of its head makes of the states.
    """
    states, fitted = fitted_head(
        model, head, head_inputs(forward, model, batch.input_ids, batch.attention_mask, **batch.images)
    )
    return states[batch.predicts.to(states.device)], fitted


def depends_on_padding(forward: Any, model: Any, batch: TrajectoryBatch, states: torch.Tensor) -> bool:
    """Whether a batch's most padded trajectory has other states when it goes through the model alone.

    Args:
        forward, model: as of `predicting_states`.
        batch: of text, padded on the right, on the device of the model's inputs.
        states: those `(N, H)` of the batch.
    """
    counts, lengths = batch.predicts.sum(dim=1), batch.attention_mask.sum(dim=1)  # (B,)
    row = int(torch.where(counts > 0, lengths, batch.attention_mask.shape[1] + 1).argmin())
    length, start, count = int(lengths[row]), int(counts[:row].sum()), int(counts[row])
    ids = batch.input_ids[row : row + 1, :length]
    inputs = head_inputs(forward, model, ids, torch.ones_like(ids)).on(states.device)
    if not count:
        return False
    together = states[start : start + count].float()
    alone = inputs.candidates[0][0][batch.predicts[row, :length].to(states.device)].float()
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


@dataclass(frozen=True)
class Vocabulary:
    """The tokens that a model has.

    Attributes:
        head: rows of its LM head.
        embeddings: rows of its input embeddings; None where these are no plain table.
    """

    head: int
    embeddings: int | None


def check_ids(trajectories: Sequence[Trajectory], vocabularies: Sequence[Vocabulary], shared: int) -> None:
    """Refuse tokens that one of the models does not have.

    Args:
        trajectories: the responses.
        vocabularies: those of the models.
        shared: the tokens that all heads have.

    Raises:
        ValueError: for the first such token.
    """
    sizes = [vocabulary.embeddings for vocabulary in vocabularies if vocabulary.embeddings is not None]
    for trajectory in trajectories:
        for ids, size in (
            (trajectory.prompt_ids, min(sizes, default=None)),
            (trajectory.completion_ids, shared),
        ):
            largest = max(ids, default=0)
            if size is not None and largest >= size:
                raise ValueError(
                    f"Problem {trajectory.problem_id} has token {largest}, but only the first {size} are in both "
                    "models: these trajectories are of another tokenizer, or tokens were added to one model "
                    "alone; resize the other (resize_token_embeddings, save_pretrained) to compare them."
                )


class StatesReader:
    """Reads trajectories with a model, a batch at a time.

    Args:
        model: a causal LM, on one device or spread over several.

    Attributes:
        model: as given.
        vocabulary: its tokens.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._takes_padding: bool | None = None  # whether padding leaves its states alone, once known
        embeddings = model.get_input_embeddings()
        rows = embeddings.num_embeddings if isinstance(embeddings, torch.nn.Embedding) else None
        with gathered_head(model) as head:
            self.vocabulary = Vocabulary(head.vocab_size, rows)

    @contextmanager
    def states(self, trajectories: Sequence[Trajectory]) -> Iterator[tuple[torch.Tensor, LMHead]]:
        """States `(N, H)` that predict the trajectories' N completion tokens, and the head that fits them.

        Both are on the head's device. The head is whole while the context is open; every rank must enter it.

        Raises:
            ValueError: for a model that is not causal, or whose own logits are not what its head makes of its states.
        """
        model = self.model
        with torch.no_grad(), evaluation_mode(model), gathered_head(model) as head:
            check_causal(model)
            yield self._read(head, trajectories)

    def _read(self, head: LMHead, trajectories: Sequence[Trajectory]) -> tuple[torch.Tensor, LMHead]:
        """States and the head that fits them; without padding where the model needs that."""
        model, device = self.model, input_device(self.model)
        batch = batch_of(trajectories, device)
        padded = not batch.attention_mask.all() and len(batch.token_ids)
        if not padded or self._takes_padding is not False:
            states, fitted = predicting_states(model, model, head, batch)
            if padded and self._takes_padding is None:
                self._takes_padding = not depends_on_padding(model, model, batch, states)
            if not padded or self._takes_padding:
                return states, fitted
        parts = []
        for trajectory in trajectories:
            states, head = predicting_states(model, model, head, batch_of([trajectory], device))
            parts.append(states)
        return torch.cat(parts), head
