"""Responses chosen for the report's explorer, with the most probable tokens at each of their positions."""

import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from accelerate import PartialState

from tokenshift.analysis.sampling.trajectories import Trajectory
from tokenshift.analysis.storage.damage import check_zip
from tokenshift.analysis.storage.file_names import file_name
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.analysis.storage.whole_file import whole_file
from tokenshift.analysis.storage.work_units import run_units

ARRAYS = ("ids", "logps")
"""Arrays that are kept of a response: the results of `PairScorer.top_tokens`."""


def explored_responses(trajectories: Mapping[str, Sequence[Trajectory]], count: int) -> list[tuple[str, Trajectory]]:
    """The (kind, trajectory) pairs that the report shows, by problem, sample and kind.

    Problems are taken in random order, the same one each time: the first sample of each problem, then the second.

    Args:
        trajectories: all responses, by kind.
        count: how many responses are shown at most.
    """
    responses = [(kind, trajectory) for kind, of_kind in trajectories.items() for trajectory in of_kind]
    problems = sorted({trajectory.problem_id for _, trajectory in responses})
    random.Random(0).shuffle(problems)
    rank = {problem: number for number, problem in enumerate(problems)}
    responses.sort(key=lambda response: (response[1].sample_id, rank[response[1].problem_id], response[0]))
    shown = responses[:count]
    return sorted(shown, key=lambda response: (response[1].problem_id, response[1].sample_id, response[0]))


def explored_keys(folder: RunFolder) -> set[tuple[str, int, int]]:
    """The (kind, problem_id, sample_id) of the responses whose most probable tokens are kept.

    Raises:
        DamagedFileError: if their file is damaged.
    """
    if not folder.explorer.exists():
        return set()
    check_zip(folder.explorer)
    with np.load(folder.explorer) as arrays:
        names = [name.rsplit("/", 3) for name in arrays.files]
    return {(kind, int(problem), int(sample)) for kind, problem, sample, _ in names}


def read_explored(folder: RunFolder) -> dict[tuple[str, int, int], tuple[np.ndarray, np.ndarray]]:
    """Ids and log-probabilities of `PairScorer.top_tokens` by (kind, problem_id, sample_id)."""
    keys = explored_keys(folder)
    if not keys:
        return {}
    with np.load(folder.explorer) as arrays:
        return {key: tuple(arrays["/".join(map(str, (*key, name)))] for name in ARRAYS) for key in keys}


def unexplored(folder: RunFolder, chosen: Sequence[tuple[str, Trajectory]]) -> list[Trajectory]:
    """The chosen responses whose most probable tokens are not there yet."""
    keys = _keys(chosen)
    if not chosen or explored_keys(folder) == set(keys):
        return []
    files = _files(folder, keys)
    return [trajectory for file, (_, trajectory) in zip(files, chosen, strict=True) if not file.exists()]


def _keys(chosen: Sequence[tuple[str, Trajectory]]) -> list[tuple[str, int, int]]:
    return [(kind, trajectory.problem_id, trajectory.sample_id) for kind, trajectory in chosen]


def _files(folder: RunFolder, keys: Sequence[tuple[str, int, int]]) -> list[Path]:
    """A unit of work for each response; a stopped run may have chosen others."""
    return [folder.units("explorer") / f"{file_name('/'.join(map(str, key)))}.npz" for key in keys]


def write_explored(
    folder: RunFolder,
    chosen: Sequence[tuple[str, Trajectory]],
    top_tokens: Callable[[Trajectory], tuple[np.ndarray, np.ndarray]],
    state: PartialState,
) -> None:
    """Keep the most probable tokens of the chosen responses; nothing is done where they are kept already.

    Every process must call it.

    Args:
        folder: the run's folder.
        chosen: (kind, trajectory) pairs; `explored_responses` chooses them.
        top_tokens: ids and log-probabilities of one trajectory; `PairScorer.top_tokens`.
        state: the processes that share the work.
    """
    keys = _keys(chosen)
    if not chosen or explored_keys(folder) == set(keys):
        if state.is_main_process:
            shutil.rmtree(folder.units("explorer"), ignore_errors=True)  # what a run left that was killed at its end
        return
    files = _files(folder, keys)

    def work(unit: int, file: Path) -> int:
        _kind, trajectory = chosen[unit]
        _write_arrays(file, dict(zip(ARRAYS, top_tokens(trajectory), strict=True)))
        return len(trajectory.completion_ids)

    run_units(files, work, "most probable tokens", state=state)
    if state.is_main_process:
        arrays: dict[str, np.ndarray] = {}
        for key, file in zip(keys, files, strict=True):
            check_zip(file)
            with np.load(file) as response:
                arrays |= {"/".join(map(str, (*key, name))): response[name] for name in ARRAYS}
        _write_arrays(folder.explorer, arrays)
        shutil.rmtree(folder.units("explorer"), ignore_errors=True)
    state.wait_for_everyone()


def _write_arrays(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a compressed `.npz` file that appears whole."""
    with whole_file(file) as partial, partial.open("wb") as out:
        np.savez_compressed(out, **arrays)  # type: ignore[arg-type]
