"""Two policies at the same positions: which of the two draws is taken, and what comes of it.

Both policies see the same mixed prefix. Where the criterion's score is above epsilon the token is the intervention's
draw, else the primary's. Both draw at every position, so what the primary would itself have drawn is defined, and with
it which interventions were effective (arXiv 2603.22446, section 3). The draws share one random number per position, or
are independent, as the publication's are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from transformers import PreTrainedTokenizerBase

from tokenshift.analysis.cross_sampling.criterion_registry import (
    Criterion,
    Positions,
    check_threshold,
    named_criterion,
    pair_statistics,
)
from tokenshift.analysis.divergence.from_logits import log_probabilities
from tokenshift.analysis.sampling.draws import coupled_draw
from tokenshift.analysis.sampling.generators import Sampling
from tokenshift.analysis.sampling.shared_noise import mixed_seed
from tokenshift.analysis.sampling.token_ids import end_tokens

DRAWS = ("shared", "independent")
"""Random numbers of the two policies at a position: one for both, or one for each."""

OWN_NUMBERS = 2
"""Mixed into the seed of the intervention's draws where they are independent; `random` mixes 1 into its own."""


@dataclass(frozen=True)
class Intervention:
    """The rule for when the intervention's draw is taken, and the distribution that it comes from.

    Attributes:
        criterion: the name of a registered criterion, or the dotted path of a function; its options may stand behind
            it in brackets. See `register_criterion`.
        epsilon: the threshold that a score must be above.
        most: effective replacements per response at most, then the primary alone; any number when None.
        gamma: the intervention draws from logits `(1 + gamma) log intervention - gamma log primary` (arXiv
            2603.22117; with the primary as base that is test-time extrapolation); 0 leaves it as it is.
        sharpening: the intervention's next-token distributions are raised to this power and renormalised, for the
            criterion too; with the base as intervention that is mere sharpening (the distributions of arXiv
            2510.14901, token by token). None leaves them as they are.
        draws: `shared`: both policies draw with the position's one random number, and differ only where their
            distributions do; `independent`: the intervention draws with a number of its own.
        entry: the criterion itself.

    Raises:
        ValueError: for an unknown criterion or numbers out of range.
    """

    criterion: str = "js"
    epsilon: float = 0.1
    most: int | None = None
    gamma: float = 0.0
    sharpening: float | None = None
    draws: str = "shared"
    entry: Criterion = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "entry", named_criterion(self.criterion))
        check_threshold(self.entry, self.epsilon)
        if self.most is not None and self.most < 0:
            raise ValueError(f"most={self.most} must be at least 0.")
        if not -1 < self.gamma < float("inf"):
            raise ValueError(f"gamma={self.gamma} must be a number above -1.")
        if self.sharpening is not None and not (self.sharpening > 0 and isfinite(self.sharpening)):
            raise ValueError(f"sharpening={self.sharpening} must be a finite number above 0.")
        if self.draws not in DRAWS:
            raise ValueError(f"draws={self.draws!r} is not known; choose {' or '.join(DRAWS)}.")


def policy_names(direction: str, sharpening: float | None) -> tuple[str, str]:
    """The names of primary and intervention, `base` or `rl`: forward, RL intervenes, and backward, the base; where the
    plan sharpens, the base intervenes in both."""
    primary = "base" if direction == "forward" else "rl"
    return primary, "rl" if direction == "forward" and sharpening is None else "base"


@dataclass
class CrossResponse:
    """A response of two policies. Each list has one element per token of the completion.

    Attributes:
        problem_id, sample_id: the request that it answers.
        prompt_ids: token ids of the prompt.
        completion_ids: token ids of the completion, the end token included where there is one.
        switched: whether the token is the intervention's draw.
        primary_ids, intervention_ids: the token that either policy drew.
        scores: the criterion's scores.
        js: JS between the policies in nats where the token is the intervention's draw; NaN elsewhere.
    """

    problem_id: int
    sample_id: int
    prompt_ids: list[int]
    completion_ids: list[int] = field(default_factory=list)
    switched: list[bool] = field(default_factory=list)
    primary_ids: list[int] = field(default_factory=list)
    intervention_ids: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    js: list[float] = field(default_factory=list)

    @property
    def effective(self) -> list[bool]:
        """Whether the intervention's draw replaced another token, for each token."""
        return [
            switched and token != primary_id
            for switched, token, primary_id in zip(self.switched, self.completion_ids, self.primary_ids, strict=True)
        ]

    @property
    def disagreed(self) -> list[bool]:
        """Whether the two draws differ, whichever is taken, for each token."""
        return [
            primary_id != intervention_id
            for primary_id, intervention_id in zip(self.primary_ids, self.intervention_ids, strict=True)
        ]


@dataclass(frozen=True)
class Pair:
    """Two policies that decode together.

    Attributes:
        primary, intervention: causal LMs in eval mode, of one tokenizer.
        tokenizer: the tokenizer of both models.

    Raises:
        ValueError: if a response could never end.
    """

    primary: Any
    intervention: Any
    tokenizer: PreTrainedTokenizerBase

    def __post_init__(self) -> None:
        if not self.ends:
            raise ValueError("The models have no end token: no response would end. Set eos_token_id.")

    @property
    def ends(self) -> set[int]:
        """Token ids at which a response ends: those of both policies."""
        return end_tokens(self.tokenizer, self.primary) | end_tokens(self.tokenizer, self.intervention)

    @property
    def pad(self) -> int:
        """A token id to pad with."""
        pad = self.tokenizer.pad_token_id
        return min(self.ends) if pad is None else pad

    @property
    def vocabulary(self) -> int:
        """The number of tokens that both LM heads have."""
        return min(model.config.get_text_config().vocab_size for model in (self.primary, self.intervention))


Values = TypeVar("Values", torch.Tensor, list[Any])


class Decisions(NamedTuple, Generic[Values]):
    """Draws and scores at B positions: tensors `(B,)` on the device of the distributions, or lists of B.

    Tensors are slow to look at element by element.

    Attributes:
        switched: whether the criterion's score is above the threshold.
        primary_ids, intervention_ids: the policies' draws, token ids.
        scores: the criterion's scores, float.
        js: JS between the policies in nats where `switched`; NaN elsewhere.
    """

    switched: Values
    primary_ids: Values
    intervention_ids: Values
    scores: Values
    js: Values


def decide(
    primary: torch.Tensor,
    intervention: torch.Tensor,
    rows: Sequence[tuple[int, int]],
    positions: Sequence[int],
    sampling: Sampling,
    plan: Intervention,
    primary_ids: torch.Tensor | None = None,
) -> Decisions[list[Any]]:
    """Decide as `decide_on_device` does, with the same arguments; the result is in lists."""
    return Decisions(*as_lists(decide_on_device(primary, intervention, rows, positions, sampling, plan, primary_ids)))


def as_lists(tensors: Sequence[torch.Tensor]) -> list[list[Any]]:
    """The values of tensors `(B,)`, in one transfer from their device; token ids and float32 are exact in float64."""
    values = torch.stack([each.double() for each in tensors]).tolist()
    kinds = [float if each.is_floating_point() else bool if each.dtype == torch.bool else int for each in tensors]
    return [[kind(value) for value in row] for kind, row in zip(kinds, values, strict=True)]


def decide_on_device(
    primary: torch.Tensor,
    intervention: torch.Tensor,
    rows: Sequence[tuple[int, int]],
    positions: Sequence[int],
    sampling: Sampling,
    plan: Intervention,
    primary_ids: torch.Tensor | None = None,
) -> Decisions[torch.Tensor]:
    """Draw from both policies at B positions, then score the positions.

    Args:
        primary, intervention: log-probabilities `(B, V)` at the sampling temperature.
        rows: (problem_id, sample_id) of each position's response.
        positions: the position of each in its completion.
        sampling: settings of both policies.
        plan: when the intervention's draw is taken; its `most` is left to the caller.
        primary_ids: `(B,)` int64, the primary's draws, if they are there already.

    Raises:
        ValueError: if the criterion gives something else than one number per position.
    """
    drawn = drawn_positions(primary, intervention, rows, positions, sampling, plan, primary_ids)
    scores = plan.entry(drawn)
    switched = scores > plan.epsilon
    js = torch.full_like(scores, torch.nan, dtype=torch.float32)
    if "js" in drawn.known:
        js = torch.where(switched, drawn.js, js)
    elif len(indices := switched.nonzero().squeeze(-1)):
        js[indices] = pair_statistics(drawn.primary[indices], drawn.intervention[indices], ("js",))["js"]
    return Decisions(switched, drawn.drawn, drawn.intervention_drawn, scores, js)


def drawn_positions(
    primary: torch.Tensor,
    intervention: torch.Tensor,
    rows: Sequence[tuple[int, int]],
    positions: Sequence[int],
    sampling: Sampling,
    plan: Intervention,
    primary_ids: torch.Tensor | None = None,
    intervention_ids: torch.Tensor | None = None,
) -> Positions:
    """Draw from both policies at B positions, as a criterion sees them; the arguments are those of `decide`.

    Args:
        intervention_ids: `(B,)` int64, the intervention's draws, if they are there already.
    """
    if primary_ids is None:
        primary_ids = coupled_draw(primary, rows, positions, **sampling.draw)
    if plan.sharpening is not None:
        intervention = log_probabilities(intervention, temperature=1 / plan.sharpening)
    if intervention_ids is None:
        target = _extrapolated(primary, intervention, plan.gamma)
        draw = sampling.draw
        if plan.draws == "independent":
            draw["seed"] = mixed_seed(sampling.seed, OWN_NUMBERS)
        intervention_ids = coupled_draw(target, rows, positions, **draw)
        del target  # with gamma it is a third (B, V), which the criterion does not need
    return Positions(primary, intervention, primary_ids, rows, positions, sampling.seed, intervention_ids)


def _extrapolated(primary: torch.Tensor, intervention: torch.Tensor, gamma: float) -> torch.Tensor:
    """Log-probabilities `(B, V)` that the intervention draws from."""
    if not gamma:
        return intervention
    floor = torch.finfo(torch.float32).min / (4 * (2 + gamma))  # -inf minus -inf would be NaN
    return log_probabilities((1 + gamma) * intervention.clamp(min=floor) - gamma * primary.clamp(min=floor))


def take(response: CrossResponse, decisions: Decisions[list[Any]], index: int, free: bool) -> int:
    """Append the token of a position to a response.

    Args:
        response: is appended to.
        decisions: at B positions.
        index: which of them.
        free: whether a replacement is left; if not, the token is the primary's.

    Returns:
        The token's id.
    """
    primary_id, intervention_id = decisions.primary_ids[index], decisions.intervention_ids[index]
    switched = decisions.switched[index] and free
    token = intervention_id if switched else primary_id
    response.completion_ids.append(token)
    response.switched.append(switched)
    response.primary_ids.append(primary_id)
    response.intervention_ids.append(intervention_id)
    response.scores.append(decisions.scores[index])
    response.js.append(decisions.js[index] if switched else float("nan"))
    return token
