"""Numbers of given texts, made while vLLM reads them as prompts: a few rows of both policies' logits at a time.

The model sees token ids and positions alone, so a text is known by its tokens: the engine reads each whole text in one
step. This module knows nothing of vLLM.

Shape legend: N tokens of a step, n rows of a call, V vocabulary.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from tokenshift.analysis.vllm_engine.row_steps import rows_of_a_call, step_function

Logits = Callable[[torch.Tensor], Mapping[str, torch.Tensor] | None]
"""Both policies' logits `(n, V)` by name, at rows `(n,)`; None in processes that are not given the gathered logits."""


@dataclass(frozen=True)
class ScoredText:
    """A text and the tokens whose numbers are wanted.

    Attributes:
        read: the token ids that the models read.
        followed: the tokens that followed the last of them, one for each row.
    """

    read: list[int]
    followed: list[int]


@dataclass
class PrefillScorer:
    """Makes numbers of texts by a function of a room above, named by `module:function`.

    The function is given logits `(n, V)` float32 by policy, the tokens `(n,)` that followed, and its settings, and
    gives tensors of n rows by name.
    """

    vocabulary: int = 0
    _function: str = ""
    _settings: str = ""
    _texts: list[ScoredText] = field(default_factory=list)
    _wanted: dict[tuple[int, ...], list[int]] = field(default_factory=dict)
    _results: dict[int, dict[str, list[Any]]] = field(default_factory=dict)

    @property
    def active(self) -> bool:
        """Whether there are texts whose numbers are wanted."""
        return bool(self._wanted)

    def begin(self, function: str, settings: str, texts: Sequence[ScoredText], vocabulary: int) -> None:
        """Take texts that will be read.

        Args:
            function: `module:function`.
            settings: what the function is told.
            texts: the texts.
            vocabulary: tokens of the larger LM head, which bounds the rows of a call.
        """
        self._function, self._settings, self._texts, self.vocabulary = function, settings, list(texts), vocabulary
        self._results, self._wanted = {}, {}
        for index, text in enumerate(texts):
            self._wanted.setdefault(tuple(text.read), []).append(index)

    def __call__(self, input_ids: torch.Tensor, positions: torch.Tensor, logits: Logits) -> None:
        """Make the numbers of the texts among N tokens of a step.

        Args:
            input_ids, positions: `(N,)`; a text begins where the position is 0.
            logits: gives logits at rows of the step.
        """
        ids, at = input_ids.tolist(), positions.tolist()
        starts = [index for index, position in enumerate(at) if index == 0 or position != at[index - 1] + 1]
        for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
            length = self._length(ids[start:end])
            for index in self._wanted.pop(tuple(ids[start : start + length]), ()):
                self._results[index] = self._score(index, start, length, logits, input_ids.device)

    def _length(self, ids: list[int]) -> int:
        """The length of the longest wanted text that begins a run, 0 for none; padding may go on behind it."""
        lengths = sorted({len(text) for text in self._wanted if len(text) <= len(ids)}, reverse=True)
        return next((length for length in lengths if tuple(ids[:length]) in self._wanted), 0)

    def _score(
        self, index: int, start: int, length: int, logits: Logits, device: torch.device
    ) -> dict[str, list[Any]]:
        text, parts = self._texts[index], list[Mapping[str, torch.Tensor]]()
        first = start + length - len(text.followed)
        rows = torch.arange(first, start + length, device=device)
        followed = torch.tensor(text.followed, device=device)
        size = rows_of_a_call(self.vocabulary, device)
        for part, tokens in zip(rows.split(size), followed.split(size), strict=True):
            both = logits(part)
            if both is not None:
                policies = {name: values.float() for name, values in both.items()}
                function: Any = step_function(self._function)
                parts.append(function(policies, tokens, self._settings))
        names = list(parts[0]) if parts else []
        return {name: torch.cat([part[name] for part in parts]).tolist() for name in names}

    def drain(self) -> dict[int, dict[str, list[Any]]]:
        """The numbers by the text's index, lists by name; texts that were not read whole in one step are missing."""
        results, self._results = self._results, {}
        self._wanted.clear()
        return {index: numbers for index, numbers in results.items() if numbers}
