"""Thresholds of criteria, found on a pilot so that a wanted share of tokens is intervened, or effectively replaced.

A threshold lies midway between two scores that were seen, one of which is above it. In another batch a score comes out
a little different, and a threshold that was itself a score would then decide by rounding.
"""

import json
import math
import shutil
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from accelerate import PartialState

from tokenshift.analysis.cross_sampling.criterion_registry import Criterion, criterion_file_name, named_criterion
from tokenshift.analysis.cross_sampling.decoding import Decoding
from tokenshift.analysis.cross_sampling.intervention import CrossResponse, Intervention
from tokenshift.analysis.cross_sampling.sweep_trees import SweepTrees
from tokenshift.analysis.sampling.requests import Prompt, requests_of
from tokenshift.analysis.storage.json_files import read_json
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.analysis.storage.whole_file import write_whole
from tokenshift.analysis.storage.work_units import run_units

THRESHOLDS_FILE = "thresholds.json"

MATCHES = ("intervened", "effective")
"""Tokens that a budget can be a share of: those that the intervention draws, or those that it replaces by another."""

INTERVENED, EFFECTIVE = MATCHES


TRIES = 5
"""Largest number of thresholds that are tried on the mixed policy for a budget."""


GRID = 8
"""Quantiles of the scores along the primary's own disagreements that are tried first for effective budgets."""


CLOSE = 0.05
"""A threshold whose share is that near to the wanted one, relative to it, is not moved any more."""


@dataclass(frozen=True)
class Threshold:
    """The epsilon that was found for a budget.

    Attributes:
        direction, criterion, gamma, budget: the policy, and the share of its tokens that was wanted.
        epsilon: the threshold tried whose share came nearest, as a ratio; between two scores, as the module says.
        share: the share of the pilot's tokens with it.
        tokens: tokens of the pilot's responses with it.
        tried: epsilons and shares, in order.
        match: the tokens that are counted, one of `MATCHES`.
        sharpening: the power of a base that intervenes; None where another model does.
        met: whether some threshold gives a share as large as the budget. If not, `share` is the largest there is.
    """

    direction: str
    criterion: str
    gamma: float
    budget: float
    epsilon: float
    share: float
    tokens: int
    tried: list[tuple[float, float]]
    match: str = INTERVENED
    sharpening: float | None = None
    met: bool = True

    @property
    def key(self) -> "Budget":
        """The budget and the policy that it is for."""
        return Budget(self.direction, self.criterion, self.gamma, self.sharpening, self.match, self.budget)


class Budget(NamedTuple):
    """A share of tokens that is wanted of a policy; the fields are as those of `Threshold`."""

    direction: str
    criterion: str
    gamma: float
    sharpening: float | None
    match: str
    budget: float


def threshold_for(criterion: str, share: float, responses: Sequence[CrossResponse]) -> float:
    """The threshold above which a share of tokens lies, by the scores that were seen along responses.

    Args:
        criterion: the name of the criterion that gave the scores.
        share: in (0, 1).
        responses: responses of the primary, or of a mixed policy.
    """
    entry = named_criterion(criterion)
    if entry.at_budget is not None:
        return entry.threshold_at(share, responses)
    scores = np.sort(np.concatenate([response.scores for response in responses]))
    above = max(1, round(share * len(scores)))
    return entry.clipped(_above(scores[max(0, len(scores) - 1 - above)], scores))


def _above(score: float, scores: np.ndarray) -> float:
    """A threshold that a score is not above and all larger ones are: the middle between it and the next larger one.

    Args:
        score: a number.
        scores: all scores that were seen, in order.

    Returns:
        The middle in float32, as scores are compared with it; the score itself where none is larger, one of the two is
        infinite, or float32 has no number between them.
    """
    larger = scores[np.searchsorted(scores, score, side="right") :][:1]
    if not len(larger) or not np.isfinite([score, larger[0]]).all():
        return float(score)
    with np.errstate(over="ignore"):  # scores in float64 may be beyond float32
        middle = float(np.float32(score / 2 + larger[0] / 2))
    return middle if score < middle < larger[0] else float(score)


def _inside(scores: np.ndarray, low: float, high: float) -> float | None:
    """The middle one of the scores between two thresholds that another one follows there; None where there is none.

    Above the last of them a threshold would decide as the upper one does.

    Args:
        scores: in order.
        low, high: thresholds that were tried.
    """
    between = scores[(scores > low) & (scores < high)]
    lower = between[between < between[-1]] if len(between) else between
    return float(lower[min(len(between) // 2, len(lower) - 1)]) if len(lower) else None


@dataclass(frozen=True)
class _Trial:
    """A threshold that was tried on the pilot.

    Attributes:
        epsilon: the threshold.
        share: the share of tokens that are counted with it.
        tokens: tokens of the responses.
        responses: these.
    """

    epsilon: float
    share: float
    tokens: int
    responses: list[CrossResponse] = field(repr=False)

    @property
    def scores(self) -> list[float]:
        """The scores of all tokens."""
        return [score for response in self.responses for score in response.scores]

    @property
    def disagreeing(self) -> list[float]:
        """The scores where the two draws differ."""
        return [score for response in self.responses for score in np.array(response.scores)[response.disagreed]]


class Asked(NamedTuple):
    """A threshold that a search wants to see on the pilot.

    Attributes:
        epsilon: the threshold.
        most: effective replacements per response at most; any number when None.
    """

    epsilon: float
    most: int | None = None


Search = Generator[list[Asked], "list[_Trial]", Threshold]
"""The search for one threshold: it yields what it wants to see, is sent these trials, and returns the threshold."""


class _Arm:
    """A policy on the pilot, whatever its threshold.

    Args:
        arm: the policy, with a budget that is not looked at.

    Attributes:
        direction: the policy's direction.
        entry: the criterion.
        lowest: the threshold above which most tokens lie.
        alone: the threshold at which the primary writes alone.
    """

    def __init__(self, arm: Budget) -> None:
        self._arm, self.direction = arm, arm.direction
        self.entry = named_criterion(arm.criterion)
        self.lowest = max(self.entry.range[0], float(np.finfo(np.float32).min))  # scores are float32
        self.alone = Asked(self.entry.range[1], most=0)

    def plan(self, asked: Asked) -> Intervention:
        """The rule for when the intervention's draw is taken."""
        return Intervention(self._arm.criterion, *asked, self._arm.gamma, self._arm.sharpening)

    def trial(self, asked: Asked, responses: list[CrossResponse]) -> _Trial:
        """The trial of a threshold, by the responses with it."""
        effective = self._arm.match == EFFECTIVE
        counted = sum(sum(response.effective if effective else response.switched) for response in responses)
        tokens = sum(len(response.switched) for response in responses)
        return _Trial(asked.epsilon, counted / tokens, tokens, responses)

    def search(self, budget: float) -> Search:
        """The search for a budget's threshold."""
        return (_search_effective if self._arm.match == EFFECTIVE else _search_intervened)(self, budget)

    def threshold(self, budget: float, trials: Sequence[_Trial], best: _Trial, *, met: bool) -> Threshold:
        """The threshold of the best trial for a budget, with all trials."""
        tried = [(trial.epsilon, trial.share) for trial in trials]
        key = self._arm._replace(budget=budget)
        numbers = best.epsilon, best.share, best.tokens, tried
        return Threshold(key.direction, key.criterion, key.gamma, budget, *numbers, key.match, key.sharpening, met)


def _search_together(
    searches: Sequence[tuple[_Arm, Search]],
    decode: Callable[[list[tuple[str, Intervention]]], list[list[CrossResponse]]],
) -> list[Threshold]:
    """Run searches side by side: whatever they want to see next is decoded together.

    Args:
        searches: searches that have not begun, and their policies.
        decode: the pilot's responses with several directions and plans.
    """
    thresholds: dict[int, Threshold] = {}
    wanted = {index: next(search) for index, (_, search) in enumerate(searches)}
    at_lowest: dict[tuple[_Arm, Asked], _Trial] = {}  # several budgets come to it, at different times
    while wanted:
        asked = dict.fromkeys((searches[index][0], ask) for index, asks in wanted.items() for ask in asks)
        new = [(arm, ask) for arm, ask in asked if (arm, ask) not in at_lowest]
        responses = decode([(arm.direction, arm.plan(ask)) for arm, ask in new]) if new else []
        trials = {(arm, ask): arm.trial(ask, made) for (arm, ask), made in zip(new, responses, strict=True)}
        at_lowest |= {
            (arm, ask): trial for (arm, ask), trial in trials.items() if ask[0] == arm.lowest and ask[1] is None
        }
        trials |= at_lowest
        going: dict[int, list[Asked]] = {}
        for index, asks in wanted.items():
            arm, search = searches[index]
            try:
                going[index] = search.send([trials[arm, ask] for ask in asks])
            except StopIteration as ended:
                thresholds[index] = ended.value
        wanted = going
    return [thresholds[index] for index in range(len(searches))]


def _near(trials: Sequence[_Trial], budget: float) -> _Trial:
    """The trial whose share is nearest, as a ratio; the first of several."""
    return min(trials, key=lambda trial: abs(math.log(max(trial.share, 1e-9) / budget)))


def _search_intervened(arm: _Arm, budget: float) -> Search:
    """First by the scores along the primary's own responses, then along the mixed policy's."""
    by_rule = arm.entry.at_budget is not None
    seen: list[list[CrossResponse]] = [[]]
    if arm.entry.budget_reads_responses:
        (alone,) = yield [arm.alone]
        seen = [alone.responses]
    trials: list[_Trial] = []
    while len(trials) < TRIES:
        tried = [(trial.epsilon, trial.share) for trial in trials]
        epsilon = next_threshold(arm.entry.name, budget, seen, tried)
        if epsilon is None:
            break
        trials += yield [Asked(epsilon)]
        seen.append(trials[-1].responses)
        if abs(trials[-1].share - budget) <= CLOSE * budget:
            break
    met = by_rule or max(trial.share for trial in trials) >= (1 - CLOSE) * budget
    if not met and arm.lowest not in [trial.epsilon for trial in trials]:
        (lowest,) = yield [Asked(arm.lowest)]
        met = lowest.share >= (1 - CLOSE) * budget
        trials += [] if met else [lowest]
    return arm.threshold(budget, trials, _near(trials, budget), met=met)


def _search_effective(arm: _Arm, budget: float) -> Search:
    """Between those thresholds of a grid whose shares lie on either side of the budget.

    The share need not fall as the threshold rises: early replacements can make later ones needless. So thresholds are
    tried over the whole range, and of several that meet a budget the lowest is taken, which covers most disagreements.
    """
    (primary,) = yield [arm.alone]
    alone, scores = np.sort(primary.disagreeing), np.sort(primary.scores)
    quantiles = alone[np.arange(GRID if len(alone) else 0) * len(alone) // GRID]
    grid = {arm.entry.clipped(_above(score, scores)) for score in quantiles}
    trials = yield [Asked(epsilon) for epsilon in sorted({arm.lowest, *grid})]
    nothing = _Trial(arm.entry.range[1], 0.0, 0, [])
    for _ in range(TRIES):
        close = [trial for trial in trials if abs(trial.share - budget) <= CLOSE * budget]
        epsilon = None if close else _between([*trials, nothing], budget, arm.entry)
        if epsilon is None:
            break
        (trial,) = yield [Asked(epsilon)]
        trials = sorted([*trials, trial], key=lambda trial: trial.epsilon)
    close = [trial for trial in trials if abs(trial.share - budget) <= CLOSE * budget]
    best = close[0] if close else _near(trials, budget)
    met = max(trial.share for trial in trials) >= (1 - CLOSE) * budget
    return arm.threshold(budget, trials, best, met=met)


def _between(trials: Sequence[_Trial], budget: float, entry: Criterion) -> float | None:
    """A threshold amid the scores between the lowest two neighbouring ones with shares on either side of a budget."""
    disagreeing, scores = (
        np.unique([score for trial in trials for score in getattr(trial, name)]) for name in ("disagreeing", "scores")
    )
    for lower, upper in pairwise(trials):
        score = _inside(disagreeing, lower.epsilon, upper.epsilon)
        if (lower.share > budget) != (upper.share > budget) and score is not None:
            return entry.clipped(_above(score, scores))
    return None


def next_threshold(
    criterion: str, budget: float, seen: Sequence[Sequence[CrossResponse]], tried: Sequence[tuple[float, float]]
) -> float | None:
    """The threshold to try, None where there is none left.

    The tokens that are drawn change what comes after, and the scores there: the share can leap from too many to too
    few, and following the last scores alone then swings from one side to the other.
    """
    epsilon = threshold_for(criterion, budget, seen[-1])
    low = max((epsilon for epsilon, share in tried if share > budget), default=-np.inf)
    high = min((epsilon for epsilon, share in tried if share < budget), default=np.inf)
    if not tried or low < epsilon < high:
        return epsilon
    entry = named_criterion(criterion)
    if entry.at_budget is not None:
        return None
    scores = np.sort(np.concatenate([response.scores for responses in seen for response in responses]))
    score = _inside(scores, low, high)
    return None if score is None else entry.clipped(_above(score, scores))


def read_thresholds(folder: RunFolder) -> list[Threshold]:
    """The thresholds found so far.

    Raises:
        ValueError: if their file is damaged.
    """
    file = folder.path / THRESHOLDS_FILE
    if not file.exists():
        return []
    try:
        return [Threshold(**entry) for entry in read_json(file)]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file} is damaged ({' '.join(str(error).split())}); delete it.") from error


def find_thresholds(
    folder: RunFolder,
    wanted: Sequence[Budget],
    prompts: Sequence[Prompt],
    run: Decoding,
    *,
    trees: SweepTrees | None = None,
    state: PartialState | None = None,
) -> list[Threshold]:
    """Thresholds for budgets, found on a pilot and kept in `thresholds.json`; those that are there are read back.

    Args:
        folder: the folder of the run.
        wanted: the budget of each threshold.
        prompts: the pilot's problems, one response each.
        run: how responses are made.
        trees: the trees along which they are decoded, if they are.
        state: the processes.
    """
    state = state or PartialState()
    known = {threshold.key: threshold for threshold in read_thresholds(folder)}
    groups: dict[Budget, list[float]] = {}  # the budgets of each policy
    wanted = list(dict.fromkeys(wanted))
    for key in wanted:
        if key not in known:
            groups.setdefault(key._replace(budget=0.0), []).append(key.budget)
    if groups:
        # a budget's threshold does not depend on which others are looked for with it, its file's name does
        units = list(groups.items()) if trees is None else []
        names = [
            "-".join(map(str, (*arm._replace(criterion=criterion_file_name(arm.criterion))[:-1], *budgets)))
            for arm, budgets in units
        ]
        files = [folder.units("pilot") / f"{name}.json" for name in names]
        new: list[Threshold] = []

        def searches(groups: Iterable[tuple[Budget, list[float]]]) -> list[tuple[_Arm, Search]]:
            arms = [(_Arm(key), budgets) for key, budgets in groups]
            return [(arm, arm.search(budget)) for arm, budgets in arms for budget in budgets]

        def work(unit: int, file: Path) -> int:
            requests = requests_of(prompts, 1)
            thresholds = _search_together(
                searches([units[unit]]), lambda plans: [run(direction, plan, requests) for direction, plan in plans]
            )
            write_whole(file, json.dumps([asdict(threshold) for threshold in thresholds]))
            return sum(threshold.tokens * len(threshold.tried) for threshold in thresholds)

        if trees is None:
            run_units(files, work, "finding thresholds", state=state)
        else:
            rounds, decode = count(1), trees.decode
            new = _search_together(
                searches(groups.items()),
                lambda plans: decode(
                    plans, run.sampling.seed, prompts, 1, f"finding thresholds, round {next(rounds)}"
                ),
            )
        if state.is_main_process:
            new += [Threshold(**entry) for file in files for entry in read_json(file)]
            records = [asdict(threshold) for threshold in [*known.values(), *new]]
            write_whole(folder.path / THRESHOLDS_FILE, json.dumps(records, indent=1) + "\n")
            shutil.rmtree(folder.units("pilot"), ignore_errors=True)
        state.wait_for_everyone()
        known = {threshold.key: threshold for threshold in read_thresholds(folder)}
    return [known[key] for key in wanted]
