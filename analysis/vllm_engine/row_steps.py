"""Gives the logits of a decoding step, a few rows of the batch at a time, to the step functions of their requests.

This module knows nothing of vLLM: it is given logits, and for each row its request and its position. The two adapters
in `processors` find these out from vLLM's two model runners.

A step function is named by `module:function` in its request, and is called with the rows of one setting:

    def step(logits, rows, positions, replaced, settings):
        return StepResult(tokens, record)

where logits are `(b, V)` float32 by the policy's name, `rows` are (problem_id, sample_id), `positions` are those of
the tokens in their completions, and `settings` is the text that the request came with.

Shape legend: B rows of a batch, b rows of a call, V vocabulary.
"""

import bisect
import functools
import importlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from tokenshift.analysis.sampling.shared_noise import Row

ARGUMENT = "tokenshift"
"""Key of a request's settings among the extra arguments of vLLM's sampling parameters."""

COPIES = 12
"""Matrices of a call's size that a step function may have at once, for the rows of a call."""

CPU_MEMORY, CUDA_MEMORY = 2**28, 2**30
"""Bytes that the matrices of a call may take: memory profiling of vLLM never calls a step function."""


@dataclass(frozen=True)
class RowRequest:
    """A request of which a row of the batch is the next token.

    Attributes:
        key: tells the requests of a run apart.
        row: (problem_id, sample_id), which the random numbers belong to.
        offset: tokens of the completion that stand in the prompt already.
        step: the step function, `module:function`.
        settings: what the step function is told.
        replaced_before: replacements among the tokens that stand in the prompt.
    """

    key: int
    row: Row
    offset: int
    step: str
    settings: str
    replaced_before: int = 0

    @property
    def argument(self) -> dict[str, Any]:
        """The request as an extra argument of vLLM's sampling parameters."""
        return {
            ARGUMENT: [self.key, *self.row, self.offset, self.step, self.settings, self.replaced_before],
        }

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any] | None) -> "RowRequest | None":
        """The request in the extra arguments of sampling parameters; None where there is none."""
        values = (arguments or {}).get(ARGUMENT)
        if values is None:
            return None
        key, problem, sample, offset, step, settings, replaced = values
        return cls(key, (problem, sample), offset, step, settings, replaced)


@dataclass(frozen=True)
class StepResult:
    """The tokens that a step function takes for b rows, and what it records.

    Attributes:
        tokens: `(b,)` int64, the tokens that are taken.
        record: what is kept of the rows, `(b,)` each by name; it may be empty.
        replaced: `(b,)` bool, rows whose token counts as a replacement; None where nobody counts them.
    """

    tokens: torch.Tensor
    record: Mapping[str, torch.Tensor]
    replaced: torch.Tensor | None = None


StepFunction = Callable[
    [Mapping[str, torch.Tensor], Sequence[Row], Sequence[int], Sequence[int], str],
    StepResult,
]


@functools.cache
def step_function(name: str) -> StepFunction:
    """The function of `module:function`."""
    module, _, function = name.partition(":")
    step: StepFunction = getattr(importlib.import_module(module), function)
    return step


@dataclass
class RowSteps:
    """Applies step functions to the rows of a batch, and keeps their records until they are drained."""

    _parts: list[tuple[list[int], list[int], Mapping[str, torch.Tensor]]] = field(default_factory=list)
    _replaced: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))

    def __call__(
        self,
        logits: Mapping[str, torch.Tensor],
        requests: Sequence[RowRequest | None],
        positions: Sequence[int | None],
    ) -> torch.Tensor:
        """Tokens `(B,)` int64; -1 where a row has no request, or is not at the end of its text.

        Args:
            logits: `(B, V)` of each policy by its name; V may differ, and the shared tokens come first.
            requests: the request of each row.
            positions: the position of the row's token in the completion; None for rows of an unfinished prefill,
                whose token is thrown away.
        """
        first = next(iter(logits.values()))
        device = first.device
        tokens = torch.full((len(requests),), -1, dtype=torch.int64, device=device)
        groups: dict[tuple[str, str], list[int]] = {}
        for index, (request, position) in enumerate(zip(requests, positions, strict=True)):
            if request is not None and position is not None:
                groups.setdefault((request.step, request.settings), []).append(index)
        size = rows_of_a_call(max(part.shape[-1] for part in logits.values()), device)
        for (name, settings), indices in groups.items():
            for start in range(0, len(indices), size):
                self._call(name, settings, indices[start : start + size], logits, requests, positions, tokens)
        return tokens

    def _call(
        self,
        name: str,
        settings: str,
        indices: list[int],
        logits: Mapping[str, torch.Tensor],
        requests: Sequence[RowRequest | None],
        positions: Sequence[int | None],
        tokens: torch.Tensor,
    ) -> None:
        chosen = [request for index in indices if (request := requests[index]) is not None]
        at = [position for index in indices if (position := positions[index]) is not None]
        keys = [request.key for request in chosen]
        replaced = [
            request.replaced_before + bisect.bisect_left(self._replaced.get(request.key, ()), position)
            for request, position in zip(chosen, at, strict=True)
        ]
        whole = len(indices) == len(tokens)
        rows = torch.tensor(indices, device=tokens.device)
        part = {policy: (every if whole else every[rows]).float() for policy, every in logits.items()}
        result = step_function(name)(part, [request.row for request in chosen], at, replaced, settings)
        tokens[rows] = result.tokens
        if result.replaced is not None:
            for key, position, counts in zip(keys, at, result.replaced.tolist(), strict=True):
                seen = self._replaced[key]
                del seen[bisect.bisect_left(seen, position) :]  # a position that is decided again
                if counts:
                    seen.append(position)
        if result.record:
            self._parts.append((keys, at, result.record))

    def drain(self) -> dict[str, Any]:
        """Return and forget the records since the last call: `keys`, `positions`, and each recorded value by name.

        A position that was decided twice, as after a preemption, comes twice; the later one counts.
        """
        parts, self._parts = self._parts, []
        self._replaced.clear()
        names = {name for _, _, record in parts for name in record}
        drained: dict[str, Any] = {
            "keys": [key for keys, _, _ in parts for key in keys],
            "positions": [position for _, positions, _ in parts for position in positions],
        }
        for name in sorted(names):
            if any(name not in record for _, _, record in parts):
                raise ValueError(f"Steps of one run must keep the same records; {name!r} is in some alone.")
            drained[name] = torch.cat([record[name] for _, _, record in parts]).tolist()
        return drained


def rows_of_a_call(vocabulary: int, device: torch.device) -> int:
    """Rows whose matrices a step function may have in memory at once, at least one."""
    memory = CUDA_MEMORY if device.type == "cuda" else CPU_MEMORY
    return max(1, memory // (4 * COPIES * vocabulary))


def only_token(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Logits `(B, V)` in which the token of each row is the only finite one; rows with token -1 stay as they are."""
    decided = tokens >= 0
    if bool(decided.all()):
        return logits.fill_(-torch.inf).scatter_(-1, tokens.unsqueeze(-1), 0.0)
    forced = torch.full_like(logits, -torch.inf).scatter_(-1, tokens.clamp(min=0).unsqueeze(-1), 0.0)
    return torch.where(decided.unsqueeze(-1), forced, logits)
