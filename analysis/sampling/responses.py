"""Responses to a set of problems, sampled in units that can be stopped and judged."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from accelerate import PartialState
from transformers import PreTrainedTokenizerBase

from tokenshift.analysis.sampling.generators import Generator
from tokenshift.analysis.sampling.requests import Prompt, prompt_groups, requests_of
from tokenshift.analysis.sampling.trajectories import Trajectory, read_trajectories, write_trajectories
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.analysis.storage.work_units import run_units

Judge = Callable[[list[int], list[str]], list[bool | None]]
"""Verdicts on completions, as text, of the problems with these ids: True, False, or None where nothing judges."""


def no_judge(rows: list[int], texts: list[str]) -> list[bool | None]:
    """The judge of responses that are not judged."""
    return [None] * len(rows)


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
        folder: the run's folder.
        kind: whose responses, in the name of their file.
        prompts: the problems.
        generator: makes the policy ready; called only if there is something left to sample.
        tokenizer: the policy's tokenizer, for the text that is judged.
        judge: verdicts on responses.
        samples: responses per problem.
        batch_size: responses at once; a unit of work holds as many whole problems as fit, the longest prompts first.
        state: the processes that share the work; every process must call it.
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
            trajectories = []
            for start in range(0, len(requests), batch_size):
                part = requests[start : start + batch_size]
                completions = ready[0](part)
                texts = tokenizer.batch_decode(completions, skip_special_tokens=True)
                verdicts = judge([request.row[0] for request in part], texts)
                trajectories += [
                    Trajectory(*request.row, request.prompt_ids, ids, correct)
                    for request, ids, correct in zip(part, completions, verdicts, strict=True)
                ]
            write_trajectories(file, trajectories)
            return sum(len(trajectory.completion_ids) for trajectory in trajectories)

        run_units(files, work, f"sampling from {kind}", state=state)
        if state.is_main_process:
            trajectories = [trajectory for file in files for trajectory in read_trajectories(file)]
            trajectories.sort(key=lambda trajectory: (trajectory.problem_id, trajectory.sample_id))
            write_trajectories(path, trajectories)
            shutil.rmtree(folder.units(kind), ignore_errors=True)
        state.wait_for_everyone()
    return read_trajectories(path)
