"""Thresholds of criteria, found on a pilot so that a wanted share of tokens is intervened."""

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from accelerate import PartialState

from tokenshift.analysis.cross_sampling.criteria import RANGES
from tokenshift.analysis.cross_sampling.decoding import Decoding
from tokenshift.analysis.cross_sampling.intervention import CrossResponse, Intervention
from tokenshift.analysis.sampling.requests import Prompt, Request, requests_of
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.analysis.storage.whole_file import write_whole
from tokenshift.analysis.storage.work_units import run_units

THRESHOLDS_FILE = "thresholds.json"


TRIES = 5
"""How many thresholds at most are tried on the mixed policy for a budget."""


CLOSE = 0.05
"""Of a wanted share; a threshold whose share is that near is not moved any more."""


@dataclass(frozen=True)
class Threshold:
    """The epsilon that was found for a budget.

    Attributes:
        direction, criterion, gamma, budget: for what.
        epsilon: the one tried whose share came nearest, as a ratio.
        share: intervened share of the pilot's tokens with it.
        tokens: of the pilot's responses with it.
        tried: epsilons and shares, in order.
    """

    direction: str
    criterion: str
    gamma: float
    budget: float
    epsilon: float
    share: float
    tokens: int
    tried: list[tuple[float, float]]

    @property
    def key(self) -> tuple[str, str, float, float]:
        return self.direction, self.criterion, self.gamma, self.budget


def threshold_for(criterion: str, share: float, responses: Sequence[CrossResponse]) -> float:
    """The threshold above which a share of tokens lies, by the scores that were seen along responses.

    Args:
        criterion: whose scores they are.
        share: in (0, 1).
        responses: of the primary, or of a mixed policy.
    """
    if criterion == "random":
        return 1 - share
    scores = np.sort(np.concatenate([response.scores for response in responses]))
    if criterion == "position":
        return -float(max(1, round(share * len(scores) / len(responses))))
    above = max(1, round(share * len(scores)))
    return _in_range(criterion, scores[max(0, len(scores) - 1 - above)])


def _in_range(criterion: str, score: float) -> float:
    """Scores can lie outside of their range by rounding."""
    return float(np.clip(score, *RANGES.get(criterion, (-np.inf, np.inf))))


def _search(
    direction: str, criterion: str, gamma: float, budgets: Sequence[float], requests: Sequence[Request], run: Decoding
) -> list[Threshold]:
    """A threshold a budget: first by the scores along the primary's own responses, then along the mixed policy's."""
    highest = RANGES.get(criterion, (0.0, float("inf")))[1]
    own = run(direction, Intervention(criterion, highest, 0), requests) if criterion != "random" else []
    found = []
    for budget in budgets:
        tried: list[tuple[float, float]] = []
        seen, tokens = [own], []
        while len(tried) < TRIES:
            epsilon = next_threshold(criterion, budget, seen, tried)
            if epsilon is None:
                break
            responses = run(direction, Intervention(criterion, epsilon, None, gamma), requests)
            tokens.append(sum(len(response.switched) for response in responses))
            share = sum(sum(response.switched) for response in responses) / tokens[-1]
            seen.append(responses)
            tried.append((epsilon, share))
            if abs(share - budget) <= CLOSE * budget:
                break
        ratios = [abs(math.log(max(share, 1e-9) / budget)) for _, share in tried]
        best = ratios.index(min(ratios))
        found.append(Threshold(direction, criterion, gamma, budget, *tried[best], tokens[best], tried))
    return found


def next_threshold(
    criterion: str, budget: float, seen: Sequence[Sequence[CrossResponse]], tried: Sequence[tuple[float, float]]
) -> float | None:
    """The threshold to try, None where there is none left.

    What is drawn changes what comes after, and the scores there: the share can leap from too many to too few, and
    following the last scores alone then swings from one side to the other.
    """
    epsilon = threshold_for(criterion, budget, seen[-1])
    low = max((each for each, share in tried if share > budget), default=-np.inf)
    high = min((each for each, share in tried if share < budget), default=np.inf)
    if not tried or low < epsilon < high:
        return epsilon
    if criterion in ("random", "position"):
        return None
    scores = np.sort(np.concatenate([response.scores for responses in seen for response in responses]))
    between = scores[(scores > low) & (scores < high)]
    return _in_range(criterion, between[len(between) // 2]) if len(between) else None


def read_thresholds(folder: RunFolder) -> list[Threshold]:
    """Those found so far.

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
    wanted: Sequence[tuple[str, str, float, float]],
    prompts: Sequence[Prompt],
    run: Decoding,
    *,
    state: PartialState | None = None,
) -> list[Threshold]:
    """Thresholds for budgets, found on a pilot and kept in `thresholds.json`; those that are there are read back.

    Args:
        folder: of the run.
        wanted: (direction, criterion, gamma, budget) of each.
        prompts: the pilot's problems, one response each.
        run: how responses are made.
    """
    state = state or PartialState()
    known = {each.key: each for each in read_thresholds(folder)}
    groups: dict[tuple[str, str, float], list[float]] = {}
    wanted = list(dict.fromkeys(wanted))
    for key in wanted:
        if key not in known:
            groups.setdefault(key[:3], []).append(key[3])
    if groups:
        requests = requests_of(prompts, 1)
        # a budget's threshold does not depend on which others are looked for with it, its file's name does
        units = [(*group, budgets) for group, budgets in groups.items()]
        names = ["-".join(map(str, (*group, *budgets))) for *group, budgets in units]
        files = [folder.units("pilot") / f"{name}.json" for name in names]

        def work(unit: int, file: Path) -> int:
            found = _search(*units[unit], requests, run)
            write_whole(file, json.dumps([asdict(each) for each in found]))
            return sum(each.tokens * len(each.tried) for each in found)

        run_units(files, work, "finding thresholds", state=state)
        if state.is_main_process:
            new = [Threshold(**entry) for file in files for entry in json.loads(file.read_text(encoding="utf-8"))]
            every = [*known.values(), *new]
            write_whole(folder.path / THRESHOLDS_FILE, json.dumps([asdict(each) for each in every], indent=1) + "\n")
            shutil.rmtree(folder.units("pilot"), ignore_errors=True)
        state.wait_for_everyone()
        known = {each.key: each for each in read_thresholds(folder)}
    return [known[key] for key in wanted]
