"""How prompts are decoded in cross-sampling, and the two policies that decode them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from tokenshift.analysis.cross_sampling.engines import ENGINES, cross_sample, engine_for
from tokenshift.analysis.cross_sampling.intervention import DRAWS, CrossResponse, Intervention, policy_names
from tokenshift.analysis.sampling.generators import Sampling
from tokenshift.analysis.sampling.requests import Request

TREE = "tree"
"""The engine that decodes each prefix of a sweep once; see `sweep_trees`."""

SWEEP_ENGINES = (TREE, *ENGINES)
"""The engines that a sweep can be asked for."""

Policies = Callable[[], tuple[Any, Any]]
"""Makes base and RL ready; called only if there is something left to sample."""

PairPolicies = Callable[[str, Intervention, Sequence[Request], Sampling], list[CrossResponse]]
"""Responses of two policies that stand in one engine: of (direction, plan, requests, sampling)."""


@dataclass(frozen=True)
class Decoding:
    """The settings by which every response of a sweep is made.

    Attributes:
        policies: base and RL.
        tokenizer: the tokenizer of both models.
        sampling: settings, but for the seeds of the swept policies.
        engine: the engine of `cross_sample` that is asked for.
        samples: responses per problem.
        batch_size: responses at once.
        draws: one of `DRAWS`.
        pair: decodes by the pair engine, in place of `policies`; None for the engines of `cross_sample`.
    """

    policies: Policies
    tokenizer: PreTrainedTokenizerBase
    sampling: Sampling
    engine: str
    samples: int
    batch_size: int
    draws: str = DRAWS[0]
    pair: PairPolicies | None = None

    @property
    def engine_run(self) -> str:
        """The engine that decodes with these two models; they are made ready to find out."""
        return self.engine if self.pair is not None else engine_for(*self.policies(), self.engine)

    def __call__(
        self, direction: str, plan: Intervention, requests: Sequence[Request], seed: int | None = None
    ) -> list[CrossResponse]:
        """A response to each request, at most `batch_size` at once; the pilot's seed when None.

        Which policy intervenes is told by `policy_names`.
        """
        sampling = self.sampling if seed is None else replace(self.sampling, seed=seed)
        if self.pair is not None:
            return self.pair(direction, replace(plan, draws=self.draws), requests, sampling)
        models = dict(zip(("base", "rl"), self.policies(), strict=True))
        primary, intervention = (models[name] for name in policy_names(direction, plan.sharpening))
        return cross_sample(
            primary,
            intervention,
            self.tokenizer,
            requests,
            plan=replace(plan, draws=self.draws),
            sampling=sampling,
            engine=self.engine,
            batch_size=self.batch_size,
        )
