"""Thresholds of criteria, found on a pilot so that a wanted share of tokens is intervened, or effectively replaced."""

import json
import math
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from accelerate import PartialState

from tokenshift.analysis.cross_sampling.criterion_registry import Criterion, criterion_file_name, named_criterion
from tokenshift.analysis.cross_sampling.decoding import Decoding
from tokenshift.analysis.cross_sampling.intervention import CrossResponse, Intervention
from tokenshift.analysis.sampling.requests import Prompt, Request, requests_of
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.analysis.storage.whole_file import write_whole
from tokenshift.analysis.storage.work_units import run_units

THRESHOLDS_FILE = "thresholds.json"

MATCHES = ("intervened", "effective")
"""Tokens that a budget can be a share of: those that the intervention draws, or those that it replaces by another."""

INTERVENED, EFFECTIVE = MATCHES


TRIES = 5
"""How many thresholds at most are tried on the mixed policy for a budget."""


CLOSE = 0.05
"""A threshold whose share is that near to the wanted one, relative to it, is not moved any more."""


@dataclass(frozen=True)
class Threshold:
    """The epsilon that was found for a budget.

    Attributes:
        direction, criterion, gamma, budget: the policy, and the share of its tokens that was wanted.
        epsilon: the threshold tried whose share came nearest, as a ratio.
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


def _scores(responses: Iterable[CrossResponse], match: str) -> np.ndarray:
    """The scores of the tokens that can be counted, in order: of all, or of those where the draws differ."""
    if match == INTERVENED:
        return np.sort(np.concatenate([response.scores for response in responses]))
    return np.sort([score for response in responses for score in np.array(response.scores)[response.disagreed]])


def _share(responses: Sequence[CrossResponse], match: str) -> float:
    """The share of tokens that were intervened, or effectively replaced."""
    counted = ((response.effective if match == EFFECTIVE else response.switched) for response in responses)
    return sum(map(sum, counted)) / sum(len(response.switched) for response in responses)


def threshold_for(criterion: str, share: float, responses: Sequence[CrossResponse], match: str = INTERVENED) -> float:
    """The threshold above which a share of tokens lies, by the scores that were seen along responses.

    Args:
        criterion: the name of the criterion that gave the scores.
        share: in (0, 1).
        responses: responses of the primary, or of a mixed policy.
        match: the tokens that are counted, one of `MATCHES`: for `effective` those above the threshold at which the
            draws differ.
    """
    entry = named_criterion(criterion)
    if _by_rule(entry, match):
        return entry.threshold_at(share, responses)
    scores = _scores(responses, match)
    above = max(1, round(share * sum(len(response.scores) for response in responses)))
    if match == EFFECTIVE and above >= len(scores):
        return _lowest(entry)
    return entry.clipped(scores[max(0, len(scores) - 1 - above)])


def _by_rule(entry: Criterion, match: str) -> bool:
    """Whether a threshold follows from the share, so that none is searched for."""
    return entry.at_budget is not None and match == INTERVENED


def _lowest(entry: Criterion) -> float:
    """The threshold above which most tokens lie."""
    return max(entry.range[0], -sys.float_info.max)


def _search(
    direction: str,
    criterion: str,
    gamma: float,
    sharpening: float | None,
    match: str,
    budgets: Sequence[float],
    requests: Sequence[Request],
    run: Decoding,
) -> list[Threshold]:
    """A threshold for each budget: first by the scores along the primary's own responses, then along the mixed
    policy's."""
    entry = named_criterion(criterion)
    by_rule, lowest = _by_rule(entry, match), _lowest(entry)
    alone = (
        run(direction, Intervention(criterion, entry.range[1], 0, gamma, sharpening), requests)
        if entry.budget_reads_responses or not by_rule
        else []
    )

    def trial(epsilon: float) -> tuple[list[CrossResponse], float, int]:
        responses = run(direction, Intervention(criterion, epsilon, None, gamma, sharpening), requests)
        return responses, _share(responses, match), sum(len(response.switched) for response in responses)

    thresholds = []
    largest: tuple[float, int] | None = None  # share and tokens at the lowest threshold, which no budget moves
    for budget in budgets:
        tried: list[tuple[float, float]] = []
        seen, tokens = [alone], []
        while len(tried) < TRIES:
            epsilon = next_threshold(criterion, budget, seen, tried, match)
            if epsilon is None:
                break
            responses, share, count = trial(epsilon)
            tokens.append(count)
            seen.append(responses)
            tried.append((epsilon, share))
            if abs(share - budget) <= CLOSE * budget:
                break
        enough = (1 - CLOSE) * budget
        met = by_rule or max(share for _, share in tried) >= enough
        if not met and lowest not in dict(tried):
            largest = largest or trial(lowest)[1:]
            met = largest[0] >= enough
            if not met:
                tried.append((lowest, largest[0]))
                tokens.append(largest[1])
        ratios = [abs(math.log(max(share, 1e-9) / budget)) for _, share in tried]
        best = ratios.index(min(ratios))
        found = (*tried[best], tokens[best], tried)
        thresholds.append(Threshold(direction, criterion, gamma, budget, *found, match, sharpening, met))
    return thresholds


def next_threshold(
    criterion: str,
    budget: float,
    seen: Sequence[Sequence[CrossResponse]],
    tried: Sequence[tuple[float, float]],
    match: str = INTERVENED,
) -> float | None:
    """The threshold to try, None where there is none left.

    The tokens that are drawn change what comes after, and the scores there: the share can leap from too many to too
    few, and following the last scores alone then swings from one side to the other.
    """
    epsilon = threshold_for(criterion, budget, seen[-1], match)
    low = max((epsilon for epsilon, share in tried if share > budget), default=-np.inf)
    high = min((epsilon for epsilon, share in tried if share < budget), default=np.inf)
    if not tried or low < epsilon < high:
        return epsilon
    entry = named_criterion(criterion)
    if _by_rule(entry, match):
        return None
    scores = _scores((response for responses in seen for response in responses), match)
    between = scores[(scores > low) & (scores < high)]
    return entry.clipped(between[len(between) // 2]) if len(between) else None


def read_thresholds(folder: RunFolder) -> list[Threshold]:
    """The thresholds found so far.

    Raises:
        ValueError: if their file is damaged.
    """
    file = folder.path / THRESHOLDS_FILE
    if not file.exists():
        return []
    try:
        return [Threshold(**entry) for entry in json.loads(file.read_text(encoding="utf-8"))]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file} is damaged ({' '.join(str(error).split())}); delete it.") from error


def find_thresholds(
    folder: RunFolder,
    wanted: Sequence[Budget],
    prompts: Sequence[Prompt],
    run: Decoding,
    *,
    state: PartialState | None = None,
) -> list[Threshold]:
    """Thresholds for budgets, found on a pilot and kept in `thresholds.json`; those that are there are read back.

    Args:
        folder: the folder of the run.
        wanted: the budget of each threshold.
        prompts: the pilot's problems, one response each.
        run: how responses are made.
        state: the processes.
    """
    state = state or PartialState()
    known = {threshold.key: threshold for threshold in read_thresholds(folder)}
    groups: dict[tuple[str, str, float, float | None, str], list[float]] = {}
    wanted = list(dict.fromkeys(wanted))
    for key in wanted:
        if key not in known:
            groups.setdefault(key[:-1], []).append(key.budget)
    if groups:
        requests = requests_of(prompts, 1)
        # a budget's threshold does not depend on which others are looked for with it, its file's name does
        units = [(*group, budgets) for group, budgets in groups.items()]
        names = [
            "-".join(map(str, (direction, criterion_file_name(criterion), gamma, sharpening, match, *budgets)))
            for direction, criterion, gamma, sharpening, match, budgets in units
        ]
        files = [folder.units("pilot") / f"{name}.json" for name in names]

        def work(unit: int, file: Path) -> int:
            thresholds = _search(*units[unit], requests, run)
            write_whole(file, json.dumps([asdict(threshold) for threshold in thresholds]))
            return sum(threshold.tokens * len(threshold.tried) for threshold in thresholds)

        run_units(files, work, "finding thresholds", state=state)
        if state.is_main_process:
            new = [Threshold(**entry) for file in files for entry in json.loads(file.read_text(encoding="utf-8"))]
            records = [asdict(threshold) for threshold in [*known.values(), *new]]
            write_whole(folder.path / THRESHOLDS_FILE, json.dumps(records, indent=1) + "\n")
            shutil.rmtree(folder.units("pilot"), ignore_errors=True)
        state.wait_for_everyone()
        known = {threshold.key: threshold for threshold in read_thresholds(folder)}
    return [known[key] for key in wanted]
