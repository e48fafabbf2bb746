"""Responses chosen for the report's explorer, with the most probable tokens at each position."""

import random
from collections.abc import Mapping, Sequence

import numpy as np

from tokenshift.analysis.sampling.trajectories import Trajectory
from tokenshift.analysis.storage.run_folder import RunFolder


def explored_responses(trajectories: Mapping[str, Sequence[Trajectory]], count: int) -> list[tuple[str, Trajectory]]:
    """The responses that the report shows: of problems in random order, the first sample of each, then the second."""
    every = [(kind, trajectory) for kind, own in trajectories.items() for trajectory in own]
    problems = sorted({trajectory.problem_id for _, trajectory in every})
    random.Random(0).shuffle(problems)
    place = {problem: number for number, problem in enumerate(problems)}
    every.sort(key=lambda each: (each[1].sample_id, place[each[1].problem_id], each[0]))
    return sorted(every[:count], key=lambda each: (each[1].problem_id, each[1].sample_id, each[0]))


def explored_keys(folder: RunFolder) -> set[tuple[str, int, int]]:
    """Responses whose most probable tokens are kept, as (kind, problem_id, sample_id)."""
    if not folder.explorer.exists():
        return set()
    with np.load(folder.explorer) as arrays:
        names = [name.rsplit("/", 3) for name in arrays.files]
    return {(kind, int(problem), int(sample)) for kind, problem, sample, _ in names}


def read_explored(folder: RunFolder) -> dict[tuple[str, int, int], tuple[np.ndarray, np.ndarray]]:
    """Ids and log-probabilities of `PairScorer.top_tokens` by (kind, problem_id, sample_id)."""
    keys = explored_keys(folder)
    if not keys:
        return {}
    with np.load(folder.explorer) as arrays:
        return {key: tuple(arrays["/".join(map(str, (*key, name)))] for name in ("ids", "logps")) for key in keys}
