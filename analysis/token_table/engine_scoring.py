"""Scoring of given trajectories by the pair engine: vLLM reads them as prompts, with both policies' logits at hand."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from transformers import PreTrainedTokenizerBase

from tokenshift.analysis.divergence.token_statistics import statistics_of_logits
from tokenshift.analysis.divergence.top_k import top_k
from tokenshift.analysis.sampling.trajectories import Trajectory
from tokenshift.analysis.token_table.schema import SCORED, build_table
from tokenshift.analysis.vllm_engine.engine import VLLMEngine
from tokenshift.analysis.vllm_engine.prefill_scoring import ScoredText

STATISTICS, TOP_TOKENS = f"{__name__}:scored_rows", f"{__name__}:top_rows"


def scored_rows(logits: Mapping[str, torch.Tensor], followed: torch.Tensor, settings: str) -> dict[str, torch.Tensor]:
    """The table's columns of rows; a function of `PrefillScorer`."""
    values = json.loads(settings)
    base, rl = (logits[name][:, : values["vocabulary"]] for name in ("base", "rl"))
    options = {"temperature": values["temperature"], "top_p": values["top_p"]}
    return statistics_of_logits(base, rl, followed, outputs=SCORED, **options)


def top_rows(logits: Mapping[str, torch.Tensor], followed: torch.Tensor, settings: str) -> dict[str, torch.Tensor]:
    """The most probable tokens of n rows, `ids` `(n, 2, k)`, and their log-probabilities, `logp` `(n, 2, 2, k)`."""
    values = json.loads(settings)
    both = []
    for name in ("base", "rl"):
        part = logits[name][:, : values["vocabulary"]]
        if values["temperature"] != 1:
            part = (part - part.amax(dim=-1, keepdim=True)) / values["temperature"]
        both.append(part)
    ids = [top_k(part, values["k"])[1] for part in both]  # (n, k)
    logp = [torch.log_softmax(part, dim=-1) for part in both]
    return {
        "ids": torch.stack(ids, dim=1),
        "logp": torch.stack([torch.stack([p.gather(-1, i) for p in logp], dim=1) for i in ids], dim=1),
    }


@dataclass
class EngineScorer:
    """Scores trajectories by a pair engine, which is started when it is first needed; it stands in for `PairScorer`.

    Attributes:
        start: starts the engine, which reads whole prompts in one step.
        tokenizer: the models' tokenizer.
        vocabulary: tokens that both LM heads have.
        temperature: divides the logits of both.
        top_p: of the column `js_top_p`.
    """

    start: Callable[[], VLLMEngine]
    tokenizer: PreTrainedTokenizerBase
    vocabulary: int
    temperature: float = 1.0
    top_p: float = 0.7

    @functools.cached_property
    def engine(self) -> VLLMEngine:
        """The engine."""
        return self.start()

    def table(self, trajectories: Sequence[Trajectory], kind: str) -> pa.Table:
        """The per-token rows of trajectories, in their order.

        Raises:
            ValueError: for an empty prompt, or a token that one of the models does not have.
        """
        numbers = self._numbers(trajectories, STATISTICS)
        statistics = {
            name: torch.tensor([value for of_text in numbers for value in of_text.get(name, ())]) for name in SCORED
        }
        return build_table(trajectories, statistics, self.tokenizer, kind)

    def top_tokens(self, trajectory: Trajectory, k: int = 10) -> tuple[np.ndarray, np.ndarray]:
        """The most probable tokens at each of a trajectory's T positions, as of `PairScorer.top_tokens`."""
        k = min(k, self.vocabulary)
        numbers = self._numbers([trajectory], TOP_TOKENS, k=k)[0]
        if not trajectory.completion_ids:
            return np.zeros((2, 0, k), dtype=np.int32), np.zeros((2, 2, 0, k), dtype=np.float32)
        ids = np.asarray(numbers["ids"], dtype=np.int32)  # (T, 2, k)
        return ids.transpose(1, 0, 2), np.asarray(numbers["logp"], dtype=np.float32).transpose(1, 2, 0, 3)

    def _numbers(self, trajectories: Sequence[Trajectory], function: str, **more: int) -> list[dict[str, list]]:
        """A scoring function's numbers for each trajectory; empty for trajectories without a token."""
        for trajectory in trajectories:
            if not trajectory.prompt_ids:
                raise ValueError(f"The prompt of problem {trajectory.problem_id} is empty; give it a start token.")
            largest = max((*trajectory.completion_ids, *trajectory.prompt_ids))
            if largest >= self.vocabulary:
                raise ValueError(
                    f"Problem {trajectory.problem_id} has token {largest}, but only the first {self.vocabulary} are "
                    "in both models: these trajectories are of another tokenizer."
                )
        settings = json.dumps(
            {"vocabulary": self.vocabulary, "temperature": self.temperature, "top_p": self.top_p, **more}
        )
        written = [index for index, trajectory in enumerate(trajectories) if trajectory.completion_ids]
        texts = [
            ScoredText(
                [*trajectories[index].prompt_ids, *trajectories[index].completion_ids[:-1]],
                trajectories[index].completion_ids,
            )
            for index in written
        ]
        numbers: list[dict[str, list]] = [{} for _ in trajectories]
        for index, of_text in zip(written, self.engine.score(texts, function, settings, self.vocabulary), strict=True):
            numbers[index] = of_text
        return numbers
