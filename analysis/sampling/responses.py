"""Responses to a set of problems, sampled in units that can be stopped and judged."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from accelerate import PartialState
from transformers import PreTrainedTokenizerBase

from tokenshift.analysis.sampling.correctness import is_correct
from tokenshift.analysis.sampling.generators import Generator
from tokenshift.analysis.sampling.requests import Prompt, prompt_groups, requests_of
from tokenshift.analysis.sampling.trajectories import Trajectory, read_trajectories, write_trajectories
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.analysis.storage.work_units import run_units
from tokenshift.analysis.thresholds import CORRECT

Judge = Callable[[list[int], list[str]], list[bool | None]]
"""Verdicts on completions, as text, of the problems with these ids: True, False, or None where nothing judges."""


@dataclass(frozen=True)
class RewardJudge:
    """A judge that goes by a reward; what it judges keeps its reward beside the verdict.

    Attributes:
        rewards: The rewards of completions, as text, of the problems with these ids; None where there is none.
        threshold: The lowest reward of a correct response.
    """

    rewards: Callable[[list[int], list[str]], list[float | None]]
    threshold: float = CORRECT

    def __call__(self, rows: list[int], texts: list[str]) -> list[bool | None]:
        return [correct for correct, _ in judged(self, rows, texts)]


def judged(judge: Judge, rows: list[int], texts: list[str]) -> list[tuple[bool | None, float | None]]:
    """Verdict and reward of each completion; the reward is None where the judge does not go by one.

    Args:
        judge: The judge.
        rows: Ids of the problems.
        texts: The completions.
    """
    if not isinstance(judge, RewardJudge):
        return [(correct, None) for correct in judge(rows, texts)]
    return [(is_correct(reward, judge.threshold), reward) for reward in judge.rewards(rows, texts)]


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
        kind: the name of the policy, in the name of the file.
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
                verdicts = judged(judge, [request.row[0] for request in part], texts)
                trajectories += [
                    Trajectory(*request.row, request.prompt_ids, ids, correct, reward=reward)
                    for request, ids, (correct, reward) in zip(part, completions, verdicts, strict=True)
                ]
            write_trajectories(file, trajectories)
            return sum(len(trajectory.completion_ids) for trajectory in trajectories)

        run_units(files, work, f"sampling from {kind}", state=state)
        if state.is_main_process:
            trajectories = [trajectory for file in files for trajectory in read_trajectories(file)]
            trajectories.sort(key=lambda trajectory: (trajectory.problem_id, trajectory.sample_id))
            write_trajectories(path, trajectories)
        state.wait_for_everyone()
    if state.is_main_process:
        shutil.rmtree(folder.units(kind), ignore_errors=True)  # what a killed run left of them, too
    return read_trajectories(path)
