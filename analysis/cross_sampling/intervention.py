"""Two policies at the same positions: what decides which of them draws, and what comes of it.

Both policies see the same mixed prefix. Where the criterion's score is above epsilon the token is the intervention's
draw, else the primary's; both draws share one random number a place, so what the primary would itself have drawn is
defined, and with it which interventions were effective (arXiv 2603.22446, section 4).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from tokenshift.analysis.cross_sampling.criteria import CRITERIA, Criterion, Positions, check_threshold
from tokenshift.analysis.divergence.from_logits import log_probabilities
from tokenshift.analysis.sampling.draws import coupled_draw
from tokenshift.analysis.sampling.generators import Sampling
from tokenshift.analysis.sampling.token_ids import end_tokens


@dataclass(frozen=True)
class Intervention:
    """What decides, and with what.

    Attributes:
        criterion: a name of `CRITERIA`.
        epsilon: the threshold that a score must be above.
        most: effective replacements a response at most, then the primary alone; any number when None.
        gamma: the intervention draws from logits `(1 + gamma) log intervention - gamma log primary` (arXiv
            2603.22117; with the primary as base that is test-time extrapolation); 0 leaves it as it is.

    Raises:
        ValueError: for an unknown criterion or numbers out of range.
    """

    criterion: str = "js"
    epsilon: float = 0.1
    most: int | None = None
    gamma: float = 0.0

    def __post_init__(self) -> None:
        check_threshold(self.criterion, self.epsilon)
        if self.most is not None and self.most < 0:
            raise ValueError(f"most={self.most} must be at least 0.")
        if not -1 < self.gamma < float("inf"):
            raise ValueError(f"gamma={self.gamma} must be a number above -1.")


@dataclass
class CrossResponse:
    """A response of two policies. The lists have a place a token, T in all.

    Attributes:
        problem_id, sample_id: whose.
        prompt_ids: of the prompt.
        completion_ids: the end token included where there is one.
        switched: whether the intervention drew.
        primary_ids, intervention_ids: what either policy would have drawn.
        scores: the criterion's.
        js: JS between the policies where the intervention drew, nats; NaN elsewhere.
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
        """Where the intervention's draw took the place of another."""
        return [
            switched and token != own
            for switched, token, own in zip(self.switched, self.completion_ids, self.primary_ids, strict=True)
        ]


@dataclass(frozen=True)
class Pair:
    """Two policies that decode together.

    Attributes:
        primary, intervention: causal LMs in eval mode on one device, of one tokenizer.
        tokenizer: theirs.

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
        """Ids at which a response ends: either policy's."""
        return end_tokens(self.tokenizer, self.primary) | end_tokens(self.tokenizer, self.intervention)

    @property
    def pad(self) -> int:
        pad = self.tokenizer.pad_token_id
        return min(self.ends) if pad is None else pad

    @property
    def vocabulary(self) -> int:
        """Tokens that both heads have."""
        return min(model.config.get_text_config().vocab_size for model in (self.primary, self.intervention))


@dataclass(frozen=True)
class Decisions:
    """What happens at B places, a list of B each: a tensor is slow to look at element by element."""

    switched: list[bool]
    primary_ids: list[int]
    intervention_ids: list[int]
    scores: list[float]
    js: list[float]


def decide(
    primary: torch.Tensor,
    intervention: torch.Tensor,
    rows: Sequence[tuple[int, int]],
    positions: Sequence[int],
    sampling: Sampling,
    plan: Intervention,
    primary_ids: torch.Tensor | None = None,
) -> Decisions:
    """Scores and draws at B places.

    Args:
        primary, intervention: log-probabilities `(B, V)` at the sampling temperature.
        rows: (problem_id, sample_id) of each place.
        positions: of each in its completion.
        sampling: settings of both policies.
        plan: what decides; its `most` is the caller's to keep.
        primary_ids: the primary's draws, if they are there already.
    """
    own = coupled_draw(primary, rows, positions, **sampling.draw) if primary_ids is None else primary_ids
    criterion: Criterion = CRITERIA[plan.criterion]
    scores = criterion(Positions(primary, intervention, own, rows, positions, sampling.seed))
    target = intervention
    if plan.gamma:
        floor = torch.finfo(torch.float32).min / (4 * (2 + plan.gamma))  # -inf minus -inf would be NaN
        target = (1 + plan.gamma) * intervention.clamp(min=floor) - plan.gamma * primary.clamp(min=floor)
        target = log_probabilities(target)
    other = coupled_draw(target, rows, positions, **sampling.draw)
    switched = scores > plan.epsilon
    js = torch.full_like(scores, torch.nan, dtype=torch.float32)
    places = switched.nonzero().squeeze(-1)
    if plan.criterion == "js":
        js[places] = scores[places]
    elif len(places):
        js[places] = CRITERIA["js"](
            Positions(primary[places], intervention[places], own[places], (), (), sampling.seed)
        )
    return Decisions(*(each.tolist() for each in (switched, own, other, scores, js)))


def take(response: CrossResponse, decisions: Decisions, place: int, free: bool) -> int:
    """Append the token of a place to a response; its primary's where no replacement is left."""
    own, other = decisions.primary_ids[place], decisions.intervention_ids[place]
    switched = decisions.switched[place] and free
    response.completion_ids.append(other if switched else own)
    response.switched.append(switched)
    response.primary_ids.append(own)
    response.intervention_ids.append(other)
    response.scores.append(decisions.scores[place])
    response.js.append(decisions.js[place] if switched else float("nan"))
    return response.completion_ids[-1]
