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
"""Whether completions, as text, answer the problems with these ids."""


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
