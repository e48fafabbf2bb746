"""From two models to a per-token table on disk: responses, then both models' statistics along them.

Under a folder: `trajectories/{kind}.parquet`, `table/part-00000-of-00002.parquet` (a file a process), `explorer.npz`.
Work is cut into units whose contents depend on the settings alone, so that a run that was stopped, or that had another
number of processes, ends in the same rows, bit for bit on one kind of machine.
"""

import random
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from accelerate import PartialState
from transformers import PreTrainedTokenizerBase

from tokenshift.analysis.generation import Generator, Request
from tokenshift.analysis.scoring import PairScorer, scoring_batches
from tokenshift.analysis.table import table_metadata, write_table
from tokenshift.analysis.trajectories import Trajectory, read_trajectories, write_trajectories
from tokenshift.analysis.units import run_units
from tokenshift.analysis.whole_file import whole_file

Judge = Callable[[list[int], list[str]], list[bool | None]]
"""Whether completions, as text, answer the problems with these ids."""


@dataclass(frozen=True)
class Prompt:
    """A problem as the models read it.

    Attributes:
        problem_id: its number in the table.
        text: for people.
        ids: token ids.
    """

    problem_id: int
    text: str
    ids: list[int]


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps what it makes."""

    path: Path

    @property
    def table(self) -> Path:
        return self.path / "table"

    @property
    def explorer(self) -> Path:
        return self.path / "explorer.npz"

    def trajectories(self, kind: str) -> Path:
        return self.path / "trajectories" / f"{kind}.parquet"

    def units(self, stage: str) -> Path:
        return self.path / "units" / stage


def prompt_groups(prompts: Sequence[Prompt], size: int) -> list[list[Prompt]]:
    """Groups of `size` problems, the longest prompts first; they depend on nothing else."""
    ordered = sorted(prompts, key=lambda prompt: (-len(prompt.ids), prompt.problem_id))
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def requests_of(prompts: Sequence[Prompt], samples: int) -> list[Request]:
    """A request for each of `samples` responses to each problem."""
    return [Request((prompt.problem_id, sample), prompt.ids) for prompt in prompts for sample in range(samples)]


def sample_trajectories(
    folder: RunFolder,
    kind: str,
    prompts: Sequence[Prompt],
    generator: Callable[[], Generator],
    tokenizer: PreTrainedTokenizerBase,
    judge: Judge,
    *,
    samples: int,
    batch_size: int,
    state: PartialState | None = None,
) -> list[Trajectory]:
    """Responses of one policy, judged; read back where they are there already.

    Args:
        folder: of the run.
        kind: whose responses.
        prompts: the problems.
        generator: makes the policy ready; called only if there is something left to sample.
        tokenizer: for the text that is judged.
        judge: verdict a response.
        samples: responses a problem.
        batch_size: responses at once; a unit of work holds as many whole problems as fit, the longest prompts first.
    """
    state = state or PartialState()
    path = folder.trajectories(kind)
    if not path.exists():
        size = max(1, batch_size // samples)
        groups = prompt_groups(prompts, size)
        files = [folder.units(kind) / f"{unit:06d}.parquet" for unit in range(len(groups))]
        ready: list[Generator] = []

        def work(unit: int, file: Path) -> int:
            if not ready:
                ready.append(generator())
            requests = requests_of(groups[unit], samples)
            found = []
            for start in range(0, len(requests), batch_size):
                part = requests[start : start + batch_size]
                completions = ready[0](part)
                texts = tokenizer.batch_decode(completions, skip_special_tokens=True)
                verdicts = judge([request.row[0] for request in part], texts)
                found += [
                    Trajectory(*request.row, request.prompt_ids, ids, correct)
                    for request, ids, correct in zip(part, completions, verdicts, strict=True)
                ]
            write_trajectories(file, found)
            return sum(len(trajectory.completion_ids) for trajectory in found)

        run_units(files, work, f"sampling from {kind}", state=state)
        if state.is_main_process:
            everyone = [trajectory for file in files for trajectory in read_trajectories(file)]
            write_trajectories(path, sorted(everyone, key=lambda each: (each.problem_id, each.sample_id)))
            shutil.rmtree(folder.units(kind), ignore_errors=True)
        state.wait_for_everyone()
    return read_trajectories(path)


def score_to_table(
    folder: RunFolder,
    trajectories: Mapping[str, Sequence[Trajectory]],
    scorer: Callable[[], PairScorer],
    metadata: Mapping[str, Any],
    *,
    batch_tokens: int,
    explored: int = 0,
    state: PartialState | None = None,
) -> None:
    """Write the per-token table, and the most probable tokens of some responses; nothing where they are there.

    Args:
        folder: of the run.
        trajectories: by kind.
        scorer: makes both models ready; called only if there is something left to score.
        metadata: of the table.
        batch_tokens: tokens in a forward pass, padding included.
        explored: responses whose most probable tokens are kept, chosen by `explored_responses`.
    """
    state = state or PartialState()
    ready: list[PairScorer] = []

    def models() -> PairScorer:
        if not ready:
            ready.append(scorer())
        return ready[0]

    if not is_scored(folder):
        batches = [
            (kind, [own[place] for place in places])
            for kind, own in trajectories.items()
            for places in scoring_batches(own, batch_tokens)
        ]
        files = [folder.units("table") / f"{unit:06d}.parquet" for unit in range(len(batches))]

        def work(unit: int, file: Path) -> int:
            kind, own = batches[unit]
            table = models().table(own, kind)
            write_table(file, table, {})
            return table.num_rows

        run_units(files, work, "scoring", state=state)
        empty = sum(not each.completion_ids for own in trajectories.values() for each in own)
        _merge(folder, files, {**metadata, "empty_responses": empty}, state)
    chosen = explored_responses(trajectories, explored)
    if chosen and explored_keys(folder) != {(kind, each.problem_id, each.sample_id) for kind, each in chosen}:
        files = [folder.units("explorer") / f"{place:06d}.npz" for place in range(len(chosen))]

        def explore(place: int, file: Path) -> int:
            _kind, trajectory = chosen[place]
            ids, logps = models().top_tokens(trajectory)
            with whole_file(file) as partial, partial.open("wb") as out:
                np.savez_compressed(out, ids=ids, logps=logps)
            return len(trajectory.completion_ids)

        run_units(files, explore, "most probable tokens", state=state)
        if state.is_main_process:
            arrays: dict[str, np.ndarray] = {}
            for (kind, each), file in zip(chosen, files, strict=True):
                with np.load(file) as found:
                    for name in ("ids", "logps"):
                        arrays[f"{kind}/{each.problem_id}/{each.sample_id}/{name}"] = found[name]
            with whole_file(folder.explorer) as partial, partial.open("wb") as out:
                np.savez_compressed(out, **arrays)  # type: ignore[arg-type]
            shutil.rmtree(folder.units("explorer"), ignore_errors=True)
        state.wait_for_everyone()
    if state.is_main_process and folder.units("").is_dir() and not any(folder.units("").iterdir()):
        folder.units("").rmdir()


def is_scored(folder: RunFolder) -> bool:
    """Whether the table is complete: a file of each process that wrote it."""
    parts = [re.fullmatch(r"part-(\d+)-of-(\d+)\.parquet", path.name) for path in folder.table.glob("part-*.parquet")]
    there = {(int(part[1]), int(part[2])) for part in parts if part}
    sizes = {size for _, size in there}
    whole = len(sizes) == 1 and there == {(rank, size) for size in sizes for rank in range(size)}
    return whole and not folder.units("table").exists()


def _merge(folder: RunFolder, files: Sequence[Path], metadata: Mapping[str, Any], state: PartialState) -> None:
    """Join the units of each process to a file of its own, a row group a unit."""
    rank, size = state.process_index, state.num_processes
    if state.is_main_process:
        for stale in folder.table.glob("part-*.parquet"):
            stale.unlink()
    state.wait_for_everyone()
    own = [pq.read_schema(file) for file in files[rank : rank + 1]]
    if own:
        schema = own[0].with_metadata(table_metadata(metadata))
        with (
            whole_file(folder.table / f"part-{rank:05d}-of-{size:05d}.parquet") as partial,
            pq.ParquetWriter(partial, schema, compression="zstd") as writer,
        ):
            for file in files[rank::size]:
                writer.write_table(pq.read_table(file).replace_schema_metadata(schema.metadata))
    state.wait_for_everyone()
    if state.is_main_process:  # renamed first: a half-deleted folder would be scored again
        done = folder.units("done")
        shutil.rmtree(done, ignore_errors=True)
        folder.units("table").rename(done)
        shutil.rmtree(done)
    state.wait_for_everyone()


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
