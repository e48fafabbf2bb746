"""A sweep of interventions, from two models to a row a response on disk.

Under a folder: `thresholds.json`, and `cells/`, a Parquet file a cell, which readers take as one table. Work is cut
into units whose contents depend on the settings alone: a run that was stopped, that had another number of processes,
or that was given more cells later ends in the same rows. With other threads or processes libraries may add in another
order, so that scores and JS can differ in their last bits.
"""

import json
import math
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from accelerate import PartialState
from transformers import PreTrainedTokenizerBase

from tokenshift.analysis.criteria import RANGES
from tokenshift.analysis.cross_sample import cross_sample
from tokenshift.analysis.generation import Request, Sampling
from tokenshift.analysis.intervention import CrossResponse, Intervention
from tokenshift.analysis.shift_run import Judge, Prompt, RunFolder, prompt_groups, requests_of
from tokenshift.analysis.table import table_metadata
from tokenshift.analysis.units import join_rows, run_units
from tokenshift.analysis.whole_file import whole_file, write_whole

DIRECTIONS = ("forward", "backward")
"""Forward: the base decodes and RL intervenes. Backward: the other way."""

ENDS = ("none", "all")
"""Criteria without a threshold: the two ends of every curve."""

THRESHOLDS_FILE = "thresholds.json"

UNIT = 4
"""Batches of a unit: a response that ends makes room for the next of its unit."""

TRIES = 5
"""How many thresholds at most are tried on the mixed policy for a budget."""

CLOSE = 0.05
"""Of a wanted share; a threshold whose share is that near is not moved any more."""

SCHEMA = pa.schema(
    [
        ("direction", pa.string()),
        ("criterion", pa.string()),
        ("epsilon", pa.float64()),  # null for none and all
        ("budget", pa.float64()),  # wanted intervened share; null where epsilon was given
        ("most", pa.int32()),
        ("gamma", pa.float64()),
        ("seed", pa.int64()),
        ("problem_id", pa.int64()),
        ("sample_id", pa.int64()),
        ("length", pa.int32()),  # of the completion, tokens
        ("correct", pa.bool_()),
        ("completion_ids", pa.list_(pa.int32())),
        # an item an intervened position
        ("positions", pa.list_(pa.int32())),
        ("effective", pa.list_(pa.bool_())),
        ("primary_ids", pa.list_(pa.int32())),
        ("intervention_ids", pa.list_(pa.int32())),
        ("scores", pa.list_(pa.float32())),
        ("js", pa.list_(pa.float32())),
    ]
)

Policies = Callable[[], tuple[Any, Any]]
"""Makes base and RL ready; called only if there is something left to sample."""


@dataclass(frozen=True)
class Cell:
    """A policy of the sweep with its seed; attributes as the columns of the same names."""

    direction: str
    criterion: str
    epsilon: float | None = None
    budget: float | None = None
    most: int | None = None
    gamma: float = 0.0
    seed: int = 0

    @property
    def plan(self) -> Intervention:
        return Intervention(self.criterion, self.epsilon or 0.0, self.most, self.gamma)

    @property
    def name(self) -> str:
        """Of its file; a budget stands for the epsilon that was found for it."""
        threshold = "" if self.epsilon is None else f"-epsilon{self.epsilon:.17g}"
        threshold = threshold if self.budget is None else f"-budget{self.budget:.17g}"
        most = "" if self.most is None else f"-most{self.most}"
        gamma = f"-gamma{self.gamma:.17g}" if self.gamma else ""
        return f"{self.direction}-{self.criterion}{threshold}{most}{gamma}-seed{self.seed}"


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


@dataclass(frozen=True)
class Decoding:
    """How every response of a sweep is made.

    Attributes:
        policies: base and RL.
        tokenizer: theirs.
        sampling: settings, but for the cells' seeds.
        engine: of `cross_sample`.
        samples: responses a problem.
        batch_size: responses at once.
    """

    policies: Policies
    tokenizer: PreTrainedTokenizerBase
    sampling: Sampling
    engine: str
    samples: int
    batch_size: int

    def __call__(
        self, direction: str, plan: Intervention, requests: Sequence[Request], seed: int | None = None
    ) -> list[CrossResponse]:
        """A response to each request, at most `batch_size` at once; the pilot's seed when None."""
        base, rl = self.policies()
        primary, intervention = (base, rl) if direction == "forward" else (rl, base)
        sampling = self.sampling if seed is None else replace(self.sampling, seed=seed)
        return cross_sample(
            primary,
            intervention,
            self.tokenizer,
            requests,
            plan=plan,
            sampling=sampling,
            engine=self.engine,
            batch_size=self.batch_size,
        )


def sweep_cells(
    directions: Sequence[str],
    criteria: Sequence[str],
    epsilons: Sequence[float],
    found: Iterable[Threshold],
    gammas: Sequence[float],
    seeds: Sequence[int],
    most: int | None = None,
) -> list[Cell]:
    """All cells: `none` and `all` of each direction and seed, then each criterion at each threshold.

    What comes twice is one cell, as are two budgets with one threshold, which `position` has where responses are
    short.

    Args:
        directions, criteria, gammas, seeds: of the sweep.
        epsilons: thresholds given, for all criteria.
        found: thresholds found for budgets.
        most: effective replacements at most, of all cells but `none` and `all`.
    """
    found = list(found)
    policies: dict[tuple[Any, ...], Cell] = {}
    for direction in directions:
        every = dict.fromkeys([0.0, *gammas])
        ends = [Cell(direction, "none"), *(Cell(direction, "all", gamma=gamma) for gamma in every)]
        swept = [
            Cell(direction, criterion, epsilon, budget, most, gamma)
            for criterion in criteria
            if criterion not in ENDS
            for gamma in gammas
            for epsilon, budget in [
                *((epsilon, None) for epsilon in epsilons),
                *((each.epsilon, each.budget) for each in found if each.key[:3] == (direction, criterion, gamma)),
            ]
        ]
        for cell in [*ends, *swept]:
            policies.setdefault((cell.direction, cell.plan), cell)
    return [replace(cell, seed=seed) for seed in dict.fromkeys(seeds) for cell in policies.values()]


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


def cell_file(folder: RunFolder, cell: Cell) -> Path:
    """Where a cell's rows are."""
    return folder.path / "cells" / f"{cell.name}.parquet"


def run_cells(
    folder: RunFolder,
    cells: Sequence[Cell],
    prompts: Sequence[Prompt],
    judge: Judge,
    run: Decoding,
    metadata: Mapping[str, Any],
    *,
    state: PartialState | None = None,
) -> None:
    """Write the rows of cells, judged; nothing where they are there already.

    Args:
        folder: of the run.
        cells: of the sweep.
        prompts: the problems.
        judge: verdict a response.
        run: how responses are made.
        metadata: of the files.
    """
    state = state or PartialState()
    left = [cell for cell in cells if not cell_file(folder, cell).exists()]
    state.wait_for_everyone()  # all have looked before anything is written
    size = max(1, UNIT * run.batch_size // run.samples)
    batches = prompt_groups(prompts, size)
    units = [(cell, batch) for cell in left for batch in range(len(batches))]
    files = [folder.units("cells") / f"{cell.name}-{batch:06d}.parquet" for cell, batch in units]

    def work(unit: int, file: Path) -> int:
        cell, batch = units[unit]
        requests = requests_of(batches[batch], run.samples)
        responses = run(cell.direction, cell.plan, requests, cell.seed)
        table = _rows(cell, responses, judge, run.tokenizer)
        with whole_file(file) as partial:
            pq.write_table(table, partial)
        return sum(len(response.completion_ids) for response in responses)

    run_units(files, work, "cross-sampling", state=state)
    if state.is_main_process:
        schema = SCHEMA.with_metadata(table_metadata(metadata))
        own: dict[Cell, list[Path]] = {}
        for (cell, _batch), file in zip(units, files, strict=True):
            own.setdefault(cell, []).append(file)
        for cell, parts in own.items():
            join_rows(parts, cell_file(folder, cell), schema)
        shutil.rmtree(folder.units(""), ignore_errors=True)
    state.wait_for_everyone()


def _rows(
    cell: Cell, responses: Sequence[CrossResponse], judge: Judge, tokenizer: PreTrainedTokenizerBase
) -> pa.Table:
    texts = tokenizer.batch_decode([response.completion_ids for response in responses], skip_special_tokens=True)
    verdicts = judge([response.problem_id for response in responses], texts)
    rows = []
    for response, correct in zip(responses, verdicts, strict=True):
        places = [place for place, switched in enumerate(response.switched) if switched]
        effective = response.effective
        rows.append(
            {
                **asdict(cell),
                "problem_id": response.problem_id,
                "sample_id": response.sample_id,
                "length": len(response.completion_ids),
                "correct": correct,
                "completion_ids": response.completion_ids,
                "positions": places,
                "effective": [effective[place] for place in places],
                "primary_ids": [response.primary_ids[place] for place in places],
                "intervention_ids": [response.intervention_ids[place] for place in places],
                "scores": [response.scores[place] for place in places],
                "js": [response.js[place] for place in places],
            }
        )
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def read_cells(folder: RunFolder, cells: Sequence[Cell], columns: Sequence[str] | None = None) -> pa.Table:
    """Rows of cells, in their order.

    Args:
        folder: of the run.
        cells: whose.
        columns: all when None.
    """
    names = None if columns is None else list(columns)
    return pa.concat_tables([pq.read_table(cell_file(folder, cell), columns=names) for cell in cells])
