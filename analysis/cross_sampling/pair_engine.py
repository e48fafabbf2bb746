"""Cross-sampling by the pair engine: both policies' logits of a step become the token of the mixed policy."""

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from tokenshift.analysis.cross_sampling.intervention import (
    CrossResponse,
    Decisions,
    Intervention,
    decide_on_device,
    policy_names,
)
from tokenshift.analysis.divergence.from_logits import log_probabilities
from tokenshift.analysis.sampling.generators import Sampling
from tokenshift.analysis.sampling.requests import Request
from tokenshift.analysis.sampling.shared_noise import Row
from tokenshift.analysis.vllm_engine.engine import StepRequest, VLLMEngine
from tokenshift.analysis.vllm_engine.row_steps import StepResult

STEP = f"{__name__}:cross_step"


@dataclass(frozen=True)
class CrossSettings:
    """The settings by which the rows of a step are decided.

    Attributes:
        primary, intervention: names of the policies, `base` or `rl`.
        sampling: settings of both policies.
        plan: when the intervention's draw is taken.
        vocabulary: tokens that both LM heads have.
    """

    primary: str
    intervention: str
    sampling: Sampling
    plan: Intervention
    vocabulary: int

    @property
    def text(self) -> str:
        """The settings as text, which a request carries to the process that decides."""
        plan = {name: value for name, value in asdict(self.plan).items() if name != "entry"}
        return json.dumps(
            {
                "primary": self.primary,
                "intervention": self.intervention,
                "sampling": asdict(self.sampling),
                "plan": plan,
                "vocabulary": self.vocabulary,
            },
            sort_keys=True,
        )

    @classmethod
    @functools.lru_cache(maxsize=1024)
    def from_text(cls, text: str) -> "CrossSettings":
        """The settings of `text`."""
        values: dict[str, Any] = json.loads(text)
        return cls(
            values["primary"],
            values["intervention"],
            Sampling(**values["sampling"]),
            Intervention(**values["plan"]),
            values["vocabulary"],
        )


def cross_step(
    logits: dict[str, torch.Tensor],
    rows: Sequence[Row],
    positions: Sequence[int],
    replaced: Sequence[int],
    settings: str,
) -> StepResult:
    """The tokens of rows of a step, and what was decided; a step function of `row_steps`."""
    chosen = CrossSettings.from_text(settings)
    plan = chosen.plan
    policies = {
        name: log_probabilities(logits[name][:, : chosen.vocabulary], temperature=chosen.sampling.temperature)
        for name in dict.fromkeys((chosen.primary, chosen.intervention))
    }
    decided = decide_on_device(
        policies[chosen.primary], policies[chosen.intervention], rows, positions, chosen.sampling, plan
    )
    switched = decided.switched
    if plan.most is not None:
        switched = switched & torch.tensor([count < plan.most for count in replaced], device=switched.device)
    tokens = torch.where(switched, decided.intervention_ids, decided.primary_ids)
    record = decided._asdict() | {"switched": switched, "js": decided.js.masked_fill(~switched, torch.nan)}
    counted = switched & (tokens != decided.primary_ids) if plan.most is not None else None
    return StepResult(tokens, record, counted)


@dataclass
class PairDecoder:
    """Decodes prompts by the pair engine, which is started when it is first needed.

    Attributes:
        start: starts the engine.
        vocabulary: tokens that both LM heads have.
    """

    start: Callable[[], VLLMEngine]
    vocabulary: int

    @functools.cached_property
    def engine(self) -> VLLMEngine:
        """The engine."""
        return self.start()

    def __call__(
        self, direction: str, plan: Intervention, requests: Sequence[Request], sampling: Sampling
    ) -> list[CrossResponse]:
        """A response to each request.

        Args:
            direction: `forward`, where RL intervenes, or `backward`; where the plan sharpens, the base does in both.
            plan: when the intervention's draw is taken.
            requests: the prompts.
            sampling: settings of both policies.

        Raises:
            ValueError: for an empty prompt.
        """
        if not all(request.prompt_ids for request in requests):
            raise ValueError("A prompt is empty; give it a start token.")
        primary, intervention = policy_names(direction, plan.sharpening)
        settings = CrossSettings(primary, intervention, sampling, plan, self.vocabulary).text
        responses = self.engine(
            [StepRequest(request, STEP, settings, sampling.max_new_tokens) for request in requests]
        )
        made = []
        for request, response in zip(requests, responses, strict=True):
            record: dict[str, Any] = {name: response.record.get(name, []) for name in Decisions._fields}
            made.append(CrossResponse(*request.row, request.prompt_ids, response.completion_ids, **record))
        return made
