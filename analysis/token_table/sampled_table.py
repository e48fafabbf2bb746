"""The per-token table made while responses are sampled: the pair engine has both policies' logits of every token."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa
import torch
from transformers import PreTrainedTokenizerBase

from tokenshift.analysis.divergence.from_logits import log_probabilities
from tokenshift.analysis.divergence.token_statistics import statistics_of_logits
from tokenshift.analysis.sampling.draws import coupled_draw
from tokenshift.analysis.sampling.generators import Sampling
from tokenshift.analysis.sampling.requests import Request
from tokenshift.analysis.sampling.shared_noise import Row
from tokenshift.analysis.sampling.trajectories import Trajectory
from tokenshift.analysis.token_table.schema import SCORED, build_table
from tokenshift.analysis.vllm_engine.engine import StepRequest, VLLMEngine
from tokenshift.analysis.vllm_engine.row_steps import StepResult

STEP = f"{__name__}:scored_draw_step"

WRITERS = ("rl", "base")
"""Policies that can write the responses."""


@dataclass(frozen=True)
class ScoredSampling:
    """Settings of sampling and scoring.

    Attributes:
        writer: the policy that writes, one of `WRITERS`.
        sampling: how it draws; its temperature divides the logits of both policies.
        top_p: of the column `js_top_p`.
        vocabulary: tokens that both LM heads have.
    """

    writer: str
    sampling: Sampling
    top_p: float
    vocabulary: int

    @property
    def text(self) -> str:
        """The settings as text, which a request carries to the process that samples."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    @functools.lru_cache(maxsize=1024)
    def from_text(cls, text: str) -> "ScoredSampling":
        """The settings of `text`."""
        values = json.loads(text)
        return cls(values["writer"], Sampling(**values["sampling"]), values["top_p"], values["vocabulary"])


def scored_draw_step(
    logits: Mapping[str, torch.Tensor],
    rows: Sequence[Row],
    positions: Sequence[int],
    replaced: Sequence[int],
    settings: str,
) -> StepResult:
    """The writer's tokens, and the table's columns of them; a step function of `row_steps`.

    The writer draws from all tokens of its own head, as it does when it samples alone.
    """
    chosen = ScoredSampling.from_text(settings)
    sampling = chosen.sampling
    logp = log_probabilities(logits[chosen.writer], temperature=sampling.temperature)
    tokens = coupled_draw(logp, rows, positions, **sampling.draw)
    del logp
    base, rl = (logits[name][:, : chosen.vocabulary] for name in ("base", "rl"))
    record = statistics_of_logits(
        base,
        rl,
        tokens.clamp(max=chosen.vocabulary - 1),  # a token that one model alone has is refused by `sampled_table`
        outputs=SCORED,
        temperature=sampling.temperature,
        top_p=chosen.top_p,
    )
    return StepResult(tokens, record)


@dataclass
class ScoringSampler:
    """Samples responses and scores them in one pass of the pair engine, which is started when it is first needed.

    Attributes:
        start: starts the engine.
        settings: how responses are sampled and scored.
        tokenizer: the models' tokenizer.
    """

    start: Callable[[], VLLMEngine]
    settings: ScoredSampling
    tokenizer: PreTrainedTokenizerBase

    @functools.cached_property
    def engine(self) -> VLLMEngine:
        """The engine."""
        return self.start()

    def __call__(self, requests: Sequence[Request]) -> tuple[list[Trajectory], dict[str, torch.Tensor]]:
        """Responses, not judged, and `SCORED`'s statistics of their tokens, `(N,)` each, in the responses' order.

        Raises:
            ValueError: if a response has a token that one of the models does not have.
        """
        text, length = self.settings.text, self.settings.sampling.max_new_tokens
        responses = self.engine([StepRequest(request, STEP, text, length) for request in requests])
        trajectories = [
            Trajectory(*request.row, request.prompt_ids, response.completion_ids)
            for request, response in zip(requests, responses, strict=True)
        ]
        largest = max((max(trajectory.completion_ids) for trajectory in trajectories), default=0)
        if largest >= self.settings.vocabulary:
            raise ValueError(
                f"A response has token {largest}, but only the first {self.settings.vocabulary} are in both models: "
                "sample with one model, and compare models of one tokenizer."
            )
        statistics = {
            name: torch.tensor([value for response in responses for value in response.record[name]]) for name in SCORED
        }
        return trajectories, statistics

    def table(self, requests: Sequence[Request], kind: str) -> pa.Table:
        """The per-token rows of responses that are sampled now, in the requests' order."""
        trajectories, statistics = self(requests)
        return build_table(trajectories, statistics, self.tokenizer, kind)
