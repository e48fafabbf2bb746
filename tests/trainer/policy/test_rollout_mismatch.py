"""The engine's mismatch, and the divergences that do not see it."""

from typing import Any

import numpy as np
import pytest
import torch
from helpers.dynamic_training import Recorder, numbered, scripted_rollout
from helpers.tiny_training import Build

from tokenshift.trainer.policy.rollout_mismatch import rollout_mismatch


def test_k3_is_of_the_trainer_against_the_engine() -> None:
    engine, trainer = torch.tensor([[-1.0, -2.0, -3.0]]), torch.tensor([[-1.5, -1.0, -3.0]])
    mask = torch.tensor([[True, True, False]])
    values = rollout_mismatch({"sampling_per_token_logps": engine, "old_per_token_logps": trainer}, mask)
    assert values is not None
    assert values.tolist() == pytest.approx([np.exp(-0.5) - 1 + 0.5, np.e - 1 - 1], rel=1e-6)
    assert rollout_mismatch({"old_per_token_logps": trainer}, mask) is None
    assert rollout_mismatch({"sampling_per_token_logps": engine}, mask) is None


@pytest.mark.parametrize("weighting", ["sigmoid", "none"])
def test_it_is_logged_and_stays_apart_from_the_trainers_own(build: Build, weighting: str) -> None:
    def rollout(prompts: list[str], trainer: Any) -> dict[str, Any]:
        found = scripted_rollout(prompts, trainer)
        unscored = [[float("nan"), *logps[1:]] for logps in found["logprobs"][:1]]  # as vLLM gives for a token
        return {**found, "logprobs": unscored + found["logprobs"][1:]}

    trainer = build(
        trainer_class=Recorder,
        advantage_weighting=weighting,
        trainer_kwargs={"train_dataset": numbered(24), "rollout_func": rollout},
        # checkpoints fall between generations, and TRL has log-probabilities of the policy that sampled
        gradient_accumulation_steps=1,
        steps_per_generation=2,
    )
    trainer.train()
    logs = trainer.state.log_history
    assert len([log for log in logs if "rollout/mean" in log]) == len(trainer.generations) == 2
    for generation, log in zip(trainer.generations, (logs[0], logs[2]), strict=True):
        mask = generation["completion_mask"].bool().numpy()
        sampled = generation["sampling_per_token_logps"].numpy().astype(np.float64)[mask]
        difference = generation["old_per_token_logps"].numpy().astype(np.float64)[mask] - sampled
        expected = np.exp(difference) - 1 - difference
        finite = expected[np.isfinite(expected)]
        assert log["rollout/non_finite_share"] == pytest.approx(1 - len(finite) / len(expected))
        assert log["rollout/mean"] == pytest.approx(finite.mean(), rel=1e-5)
        assert log["rollout/p90"] == pytest.approx(np.quantile(finite, 0.9), rel=1e-3)
        assert log["rollout/max"] == pytest.approx(finite.max(), rel=1e-5)
        assert log["rollout/frac_high"] == pytest.approx((finite > 0.1).mean())
        assert log["rollout/mean"] > 0.5  # the engine is far
        if weighting == "none":
            assert "divergence/mean" not in log
        else:
            assert log["divergence/max"] < 1e-9  # the policy is at itself
