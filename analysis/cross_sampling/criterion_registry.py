"""The registry of criteria. A criterion scores positions; the intervention draws where a score is above a threshold.

A criterion is one decorated function: see `register_criterion`. The shipped ones are in `criteria`, which the package
imports before a name is looked up.
"""

import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from tokenshift.analysis.divergence.from_logits import check_sampling, js_divergence
from tokenshift.analysis.divergence.row_sums import row_sums
from tokenshift.analysis.divergence.top_k import top_k
from tokenshift.analysis.divergence.top_p import DEPTH, NextTokens, truncated_divergences
from tokenshift.analysis.named_options import base_of, check_options, read_options
from tokenshift.analysis.registry import RAISED_BY_USERS, Registry, UserFunctionError
from tokenshift.analysis.sampling.shared_noise import Row
from tokenshift.analysis.storage.file_names import file_name
from tokenshift.analysis.thresholds import LOG_2

if TYPE_CHECKING:
    from tokenshift.analysis.cross_sampling.intervention import CrossResponse

STRIP = 3 * 2**18
"""Bytes of one policy's log-probabilities that are read at a time."""

PAIR_STATISTICS = {
    "js": "js",
    "forward_kl": "forward_kl",
    "reverse_kl": "reverse_kl",
    "entropy_primary": "entropy_base",
    "entropy_intervention": "entropy_rl",
}
"""Statistics of two distributions that a criterion may read, and the names that `row_sums` has for them."""


def pair_statistics(
    primary: torch.Tensor, intervention: torch.Tensor, names: Iterable[str]
) -> dict[str, torch.Tensor]:
    """Statistics of two policies at B positions, `(B,)` float32 in nats by name, in one pass over the vocabulary.

    Args:
        primary, intervention: log-probabilities `(B, V)`.
        names: names of `PAIR_STATISTICS`.
    """
    strip = max(1, STRIP // (4 * primary.shape[-1]))
    floor = torch.finfo(torch.float32).min / 4  # a log-probability of -inf has no place in its arithmetic
    wanted = frozenset(PAIR_STATISTICS[name] for name in names)
    first, second = (logp.float().clamp(min=floor) for logp in (primary, intervention))
    means = row_sums(first, second, wanted, strip=strip, overwrite=False).means
    return {name: means[PAIR_STATISTICS[name]] for name in names}


def truncated_js(primary: torch.Tensor, intervention: torch.Tensor, top_p: float) -> torch.Tensor:
    """JS of two policies at B positions, both truncated to `top_p` and renormalised: `(B,)` float32, 0 to ln 2 nats.

    Args:
        primary, intervention: log-probabilities `(B, V)`.
        top_p: in (0, 1]; 1 is the whole vocabulary.

    Raises:
        ValueError: for a top-p out of range.
    """
    check_sampling(1.0, top_p)
    if top_p == 1:
        return pair_statistics(primary, intervention, ("js",))["js"]
    logps = primary.float(), intervention.float()
    strip = max(1, STRIP // (4 * primary.shape[-1]))
    first, second = map(_next_tokens, logps)
    (js, _, _), sure = truncated_divergences(first, second, top_p, strip)
    for row in (~sure).nonzero().squeeze(-1).tolist():  # rounding leaves their sets open
        js[row] = js_divergence(*(logp[row].double() for logp in logps), top_p=top_p)
    return js


def _next_tokens(logp: torch.Tensor) -> NextTokens:
    """Distributions from log-probabilities `(B, V)` float32, which need no normaliser."""
    return NextTokens(logp, top_k(logp, DEPTH), torch.zeros(len(logp), dtype=torch.float64, device=logp.device))


@dataclass(frozen=True)
class Positions:
    """B positions at which both policies have drawn, and one of the two draws is about to be taken.

    Attributes:
        primary, intervention: log-probabilities `(B, V)` at the sampling temperature, not truncated.
        drawn: `(B,)` int64, the primary's draws.
        rows: (problem_id, sample_id) of each position's response.
        positions: the position of each token in its completion, from 0.
        seed: the seed of the run.
        intervention_drawn: `(B,)` int64, the intervention's draws: with the primary's random numbers, or with its own
            where the run's draws are independent.
    """

    primary: torch.Tensor
    intervention: torch.Tensor
    drawn: torch.Tensor
    rows: Sequence[Row]
    positions: Sequence[int]
    seed: int
    intervention_drawn: torch.Tensor
    known: dict[str, torch.Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def compute(self, names: Sequence[str]) -> None:
        """Compute statistics together, where they are not known yet."""
        missing = [name for name in names if name not in self.known]
        if missing:
            self.known.update(pair_statistics(self.primary, self.intervention, missing))

    def _statistic(self, name: str) -> torch.Tensor:
        self.compute((name,))
        return self.known[name]

    @property
    def js(self) -> torch.Tensor:
        """JS between the policies, `(B,)` in nats, 0 to ln 2."""
        return self._statistic("js")

    def js_top_p(self, top_p: float) -> torch.Tensor:
        """JS between the policies truncated to `top_p`, `(B,)` in nats, 0 to ln 2.

        Raises:
            ValueError: for a top-p outside (0, 1].
        """
        name = f"js_top_p {top_p!r}"
        if name not in self.known:
            self.known[name] = truncated_js(self.primary, self.intervention, top_p)
        return self.known[name]

    @property
    def forward_kl(self) -> torch.Tensor:
        """KL(primary‖intervention), `(B,)` in nats."""
        return self._statistic("forward_kl")

    @property
    def reverse_kl(self) -> torch.Tensor:
        """KL(intervention‖primary), `(B,)` in nats."""
        return self._statistic("reverse_kl")

    @property
    def entropy_primary(self) -> torch.Tensor:
        """The primary's entropy, `(B,)` in nats."""
        return self._statistic("entropy_primary")

    @property
    def entropy_intervention(self) -> torch.Tensor:
        """The intervention's entropy, `(B,)` in nats."""
        return self._statistic("entropy_intervention")


ScoreFunction = Callable[..., torch.Tensor]
"""From `Positions`, and the function's own keyword-only arguments, to scores `(B,)`."""

AtBudget = Callable[[float], float] | Callable[[float, Sequence["CrossResponse"]], float]
"""From a wanted share of intervened tokens, and the responses seen where it takes them, to the threshold."""


@dataclass(frozen=True)
class Criterion:
    """An entry of the registry.

    Attributes:
        name: the name in tables, legends and files; a user's options stand behind it in brackets.
        function: the scores.
        range: thresholds that make sense, both ends included.
        at_budget: the threshold for a share of tokens; None where it is searched for among the scores that were seen.
        needs: statistics of `PAIR_STATISTICS` that are computed together before the function is called.
        options: the function's keyword-only arguments.
    """

    name: str
    function: ScoreFunction
    range: tuple[float, float] = (-math.inf, math.inf)
    at_budget: AtBudget | None = None
    needs: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """The description of the criterion for the report: the first line of the function's docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    @property
    def budget_reads_responses(self) -> bool:
        """Whether a threshold for a budget depends on responses that were seen."""
        return self.at_budget is None or len(inspect.signature(self.at_budget).parameters) > 1

    def threshold_at(self, share: float, responses: Sequence["CrossResponse"]) -> float:
        """The threshold for a share of intervened tokens, of a criterion that has `at_budget`.

        Raises:
            ValueError: if `at_budget` gives no number within the range.
        """
        assert self.at_budget is not None
        threshold: Any = self.at_budget(*((share, responses) if self.budget_reads_responses else (share,)))
        try:
            check_threshold(self, float(threshold))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"criterion={self.name!r}: at_budget gave {threshold!r} for a share of {share:g}, which is no "
                f"number in {_interval(self.range)}."
            ) from error
        return float(threshold)

    def clipped(self, score: float) -> float:
        """A score as a threshold: rounding can put it outside of the range."""
        return float(np.clip(score, *self.range))

    def __call__(self, positions: Positions) -> torch.Tensor:
        """Scores `(B,)`.

        Raises:
            ValueError: if the function gives something else than one number per position.
        """
        scores = self.unchecked(positions)
        if scores.isnan().any():
            raise self.no_numbers(int(scores.isnan().sum()), len(scores))
        return scores

    def unchecked(self, positions: Positions) -> torch.Tensor:
        """The scores without the check for NaN, for callers that check later: a check waits for the device.

        Raises:
            ValueError: if the function gives something of another shape.
        """
        positions.compute(self.needs)
        try:
            scores: Any = self.function(positions, **self.options)
        except SystemExit as error:
            raise UserFunctionError(f"criterion={self.name!r} raised SystemExit({error.code!r}).") from error
        shape = tuple(positions.drawn.shape)
        if not isinstance(scores, torch.Tensor) or tuple(scores.shape) != shape:
            got = f"shape {tuple(scores.shape)}" if isinstance(scores, torch.Tensor) else type(scores).__name__
            raise UserFunctionError(
                f"criterion={self.name!r} must give a tensor with one score per position, of shape {shape}; it gave "
                f"{got}."
            )
        exact = scores.dtype in (torch.float32, torch.float64)  # of half precision, no threshold may lie between two
        return (scores if exact else scores.float()).to(positions.drawn.device)

    def no_numbers(self, count: int, of: int) -> UserFunctionError:
        """The error for scores of which some are NaN."""
        return UserFunctionError(
            f"criterion={self.name!r} gave NaN at {count} of {of} positions; a score must be a number, inf and -inf "
            "included."
        )


def _from_function(name: str, function: ScoreFunction) -> Criterion:
    return Criterion(name, function)


CRITERIA: Registry[Criterion] = Registry("criterion", "criterion", _from_function)
"""The registered criteria; iterating gives their names."""

_Function = TypeVar("_Function", bound=ScoreFunction)


def register_criterion(
    name: str | None = None,
    *,
    range: tuple[float, float] = (-math.inf, math.inf),
    at_budget: AtBudget | None = None,
    needs: Sequence[str] = (),
) -> Callable[[_Function], _Function]:
    """Make a function a criterion of cross-sampling. How to add one, in a file `my_criteria.py` of yours:

        from tokenshift.analysis import register_criterion

        @register_criterion(range=(0, 1))
        def surprise(positions, *, scale: float = 1.0):
            return 1 - (positions.intervention_drawn == positions.drawn) * (-scale * positions.js).exp()

    and `python recipes/cross_sample.py --criteria js my_criteria.surprise "my_criteria.surprise(scale=2.0)"`, or
    `Intervention("my_criteria.surprise", 0.1)`. The dotted path works without the decorator too.

    Args:
        name: the name of the criterion; the function's when None.
        range: thresholds that make sense, both ends included.
        at_budget: how a share of intervened tokens is met: from the share, or the share and the responses seen, to
            the threshold. When None it is searched for among scores.
        needs: statistics of `PAIR_STATISTICS` that the function reads, computed in one pass over the vocabulary; one
            that is not named is computed when it is read.

    Returns:
        The decorator, which gives the function back as it is. The function takes `Positions`, and options as
        keyword-only arguments; it gives a tensor `(B,)`: the intervention draws where it lies above the threshold.

    Raises:
        ValueError: for a name that is taken, a range without numbers, or unknown needs.
    """
    if name is not None and not isinstance(name, str):
        raise ValueError("register_criterion is called with brackets: @register_criterion().")
    if name is not None and "(" in name:
        raise ValueError(f"The name {name!r} of a criterion has a bracket, which is where options begin.")
    low, high = range
    if not low <= high:
        raise ValueError(f"range={range!r} of a criterion must be (lowest, highest).")
    if unknown := [statistic for statistic in needs if statistic not in PAIR_STATISTICS]:
        raise ValueError(f"needs names {unknown[0]!r}; a criterion may need {', '.join(PAIR_STATISTICS)}.")

    def decorate(function: _Function) -> _Function:
        chosen = name or function.__name__
        CRITERIA.add(chosen, function, Criterion(chosen, function, (low, high), at_budget, tuple(needs)))
        return function

    return decorate


def named_criterion(name: str) -> Criterion:
    """The criterion of a name or of a dotted path, options in brackets: `js`, `my_criteria.surprise(scale=2.0)`.

    Raises:
        ValueError: for a name that is not known (the nearest one is shown), a dotted path that leads to no function,
            or options that the function does not take.
    """
    base, options = base_of(name), read_options(name, "criterion")
    entry = CRITERIA.get(base)
    check_options(name, options, inspect.signature(entry.function), "criterion")
    shown = f"{base}({', '.join(f'{key}={value!r}' for key, value in options.items())})" if options else base
    return replace(entry, name=shown, options=options)


def criterion_file_name(name: str) -> str:
    """A criterion's name as a part of a file's name: as it is where it is made of letters, digits, `_` and dots."""
    return name if re.fullmatch(r"[\w.]+", name) else file_name(name)


def check_threshold(criterion: str | Criterion, threshold: float) -> None:
    """
    Raises:
        ValueError: for an unknown criterion, or a threshold outside its range.
    """
    entry = named_criterion(criterion) if isinstance(criterion, str) else criterion
    low, high = entry.range
    if not low <= threshold <= high:
        raise ValueError(f"epsilon={threshold:g} must lie in {_interval(entry.range)} for the criterion {entry.name}.")


def _interval(ends: tuple[float, float]) -> str:
    low, high = ("ln 2" if end == LOG_2 else f"{end:g}" for end in ends)
    return f"[{low}, {high}]"


def rehearse(criterion: Criterion, vocabulary: int) -> None:
    """Call a criterion once on made-up positions, so that its mistakes are found before a model is loaded.

    Args:
        criterion: the entry.
        vocabulary: tokens of the models' vocabulary.

    Raises:
        ValueError: if the function raises an error, or gives something else than one number per position.
    """
    generator = torch.Generator().manual_seed(0)
    primary, intervention = (torch.randn(3, vocabulary, generator=generator).log_softmax(-1) for _ in "pq")
    drawn, other = (logp.argmax(-1) for logp in (primary, intervention))
    positions = Positions(primary, intervention, drawn, [(0, 0), (0, 1), (1, 0)], [0, 1, 5], 0, other)
    try:
        criterion(positions)
    except ValueError as error:
        if str(error).startswith("criterion="):
            raise
        raise _failed(criterion, error) from error
    except RAISED_BY_USERS as error:  # whatever the user's function raises
        raise _failed(criterion, error) from error


def _failed(criterion: Criterion, error: BaseException) -> ValueError:
    reason = " ".join(str(error).split())
    return ValueError(f"criterion={criterion.name!r} fails on 3 made-up positions: {type(error).__name__}: {reason}")
