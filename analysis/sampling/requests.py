"""Prompts as problems, and requests for responses to them."""

from collections.abc import Sequence
from dataclasses import dataclass

from tokenshift.analysis.sampling.shared_noise import Row


@dataclass(frozen=True)
class Request:
    """A request for a response.

    Attributes:
        row: (problem_id, sample_id) of the response.
        prompt_ids: token ids of the prompt.
    """

    row: Row
    prompt_ids: list[int]


@dataclass(frozen=True)
class Prompt:
    """A problem as a model reads it.

    Attributes:
        problem_id: the problem's number in tables.
        text: the prompt as people read it.
        ids: the prompt's token ids.
    """

    problem_id: int
    text: str
    ids: list[int]


def prompt_groups(prompts: Sequence[Prompt], size: int) -> list[list[Prompt]]:
    """Groups of `size` problems, the longest prompts first; they depend on nothing else."""
    ordered = sorted(prompts, key=lambda prompt: (-len(prompt.ids), prompt.problem_id))
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def requests_of(prompts: Sequence[Prompt], samples: int) -> list[Request]:
    """A request for each of `samples` responses to each problem."""
    return [Request((prompt.problem_id, sample), prompt.ids) for prompt in prompts for sample in range(samples)]
