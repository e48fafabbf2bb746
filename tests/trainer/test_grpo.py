"""The trainer: what it weights, in which configurations, and what it leaves behind."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from helpers.tiny_training import Build, even_digits, parameters, same
from peft import LoraConfig
from trl import GRPOTrainer

from tokenshift.trainer import DivergenceGRPOTrainer


class Recorder(DivergenceGRPOTrainer):
    """Keeps what each update's loss was computed from."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.seen: list[dict[str, torch.Tensor]] = []
        super().__init__(*args, **kwargs)

    def _weight_advantages(self, inputs: dict[str, Any], logps: torch.Tensor, states: list[torch.Tensor]) -> None:
        base = inputs["advantages"].clone()
        super()._weight_advantages(inputs, logps, states)
        mask = inputs["completion_mask"] * inputs.get("tool_mask", 1)
        self.seen.append(
            {
                "base": base,
                "weighted": inputs["advantages"],
                "logps": logps,
                "old": inputs.get("old_per_token_logps", logps),
                "mask": mask.bool(),
            }
        )


def float64_weights(update: dict[str, torch.Tensor], weight: Any) -> np.ndarray:
    logps, old = update["logps"].double().numpy(), update["old"].double().numpy()
    return np.where(update["mask"].numpy(), weight(logps, old), 1.0)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -500, 500)))


@pytest.mark.parametrize(
    ("settings", "weight"),
    [
        ({}, lambda p, q: 1 + sigmoid(100 * (np.exp(p - q) - 1 - (p - q))) - 0.5),
        ({"divergence_alpha": -100.0}, lambda p, q: 1 + sigmoid(-100 * (np.exp(p - q) - 1 - (p - q))) - 0.5),
        (
            {"divergence": "k2", "divergence_scale": 0.5, "divergence_alpha": 10.0},
            lambda p, q: 1 + 0.5 * (sigmoid(10 * (p - q) ** 2 / 2) - 0.5),
        ),
        ({"divergence": "k1", "divergence_alpha": 1.0}, lambda p, q: 1 + sigmoid(q - p) - 0.5),
        ({"advantage_weighting": "low_prob", "low_prob_coef": 0.3}, lambda p, q: 1.3 - 0.3 * np.exp(q)),
    ],
)
def test_weighted_advantages_against_float64(build: Build, settings: dict[str, Any], weight: Any) -> None:
    trainer = build(trainer_class=Recorder, num_iterations=2, **settings)
    trainer.train()
    assert len(trainer.seen) == 4
    spread = 0.0
    for update in trainer.seen:
        expected = update["base"].double().numpy()[:, None] * float64_weights(update, weight)
        np.testing.assert_allclose(update["weighted"].double().numpy(), expected, atol=2e-4)
        assert not update["weighted"].requires_grad
        spread = max(spread, np.ptp(float64_weights(update, weight)))
    assert spread > 1e-3, "all weights were equal, so the comparison says nothing"


def test_padding_truncated_and_tool_tokens_keep_the_plain_advantage(build: Build) -> None:
    class ToolMasked(Recorder):
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            outputs = super()._generate_and_score_completions(inputs)
            outputs["tool_mask"] = torch.ones_like(outputs["completion_mask"])
            outputs["tool_mask"][:, 2:5] = 0
            return outputs

    trainer = build(trainer_class=ToolMasked, mask_truncated_completions=True, num_iterations=2)
    # a policy that ends about half its completions in time
    with torch.no_grad():
        trainer.model.lm_head.weight[2] = trainer.model.lm_head.weight.mean(0)
    trainer.train()
    ratios = [update["weighted"] / update["base"].unsqueeze(1) for update in trainer.seen]
    outside = torch.cat([r[~u["mask"]] for r, u in zip(ratios, trainer.seen, strict=True)])
    outside = outside[~outside.isnan()]
    inside = torch.cat([r[u["mask"]] for r, u in zip(ratios, trainer.seen, strict=True)])
    assert len(outside)
    assert torch.allclose(outside, torch.ones_like(outside))
    assert (inside[~inside.isnan()] - 1).abs().max() > 1e-3
    assert any((~update["mask"]).all(dim=1).any() for update in trainer.seen), "no completion was masked whole"


def test_controls_reach_the_loss(build: Build) -> None:
    weights = {}
    for control in ("none", "shuffle", "mean"):
        trainer = build(trainer_class=Recorder, weight_control=control, num_iterations=2, max_steps=2)
        trainer.train()
        update = trainer.seen[1]  # the first has all divergences zero
        weights[control] = (update["weighted"] / update["base"].unsqueeze(1))[update["mask"]]
    finite = [~torch.isnan(value) for value in weights.values()]
    keep = finite[0] & finite[1] & finite[2]
    assert not torch.allclose(weights["none"][keep], weights["shuffle"][keep])
    assert float(weights["mean"][keep].std()) == pytest.approx(0, abs=1e-6)


def test_normalized_weights_have_mean_one(build: Build) -> None:
    trainer = build(normalize_weights=True, num_iterations=2)
    trainer.train()
    means = [log["advantage_weight/mean"] for log in trainer.state.log_history if "advantage_weight/mean" in log]
    assert len(means) == 4
    assert means == pytest.approx([1.0] * 4, abs=1e-6)


@pytest.mark.parametrize("loss_type", ["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo"])
@pytest.mark.parametrize(
    "settings",
    [
        {"beta": 0.1, "gradient_accumulation_steps": 2, "steps_per_generation": 4},
        {"gradient_checkpointing": True, "num_iterations": 3, "mask_truncated_completions": True},
        {"gradient_accumulation_steps": 4, "steps_per_generation": 6, "scale_rewards": "none"},
        {"trainer_kwargs": {"peft_config": LoraConfig(r=4, target_modules="all-linear")}, "beta": 0.1},
    ],
    ids=["beta+accumulation", "checkpointing+iterations+masking", "misaligned", "peft+beta"],
)
def test_trains_in_every_supported_configuration(build: Build, loss_type: str, settings: dict[str, Any]) -> None:
    trainer = build(loss_type=loss_type, **settings)
    before = parameters(trainer)
    trainer.train()
    assert not same(before, parameters(trainer))
    logs = [log for log in trainer.state.log_history if "advantage_weight/mean" in log]
    # an update whose completions are all masked has no token to tell of
    assert len(logs) == 4 or settings.get("mask_truncated_completions")
    assert len(logs) >= 2
    assert all(math.isfinite(value) for log in logs for value in log.values() if isinstance(value, float))
    assert max(log["divergence/max"] for log in logs) > 0
    assert max(log["advantage_weight/max"] for log in logs) > 1


def test_evaluation_is_stock_and_leaves_the_weights_logs_alone(build: Build, problems: Dataset) -> None:
    settings = {"eval_strategy": "steps", "eval_steps": 2, "per_device_eval_batch_size": 4, "num_generations_eval": 2}
    held_out = {"eval_dataset": problems.select(range(4))}
    trainer = build(trainer_kwargs=held_out, num_iterations=2, **settings)
    trainer.train()
    logs = [log for log in trainer.state.log_history if "eval_reward" in log]
    assert len(logs) == 2
    assert not any(key.startswith("eval_advantage_weight") for log in logs for key in log)
    assert sum("advantage_weight/mean" in log for log in trainer.state.log_history) == 4


def test_a_reward_of_two_values_is_logged_with_them(build: Build, problems: Dataset) -> None:
    evaluated = {"eval_dataset": problems.select(range(4)), "reward_funcs": even_digits}
    settings = {"eval_strategy": "steps", "per_device_eval_batch_size": 4, "num_generations_eval": 2}
    trainer = build(trainer_kwargs=evaluated, max_steps=4, eval_steps=2, **settings)
    trainer.train()
    logs = [log for log in trainer.state.log_history if "rewards/even_digits/mean" in log]
    assert len(logs) == 2  # a generation is two updates
    for log in logs:
        lowest, mean, highest = (log[f"rewards/even_digits/{name}"] for name in ("lowest", "mean", "highest"))
        assert {lowest, highest} <= {0.0, 1.0}
        assert lowest <= mean <= highest
    evaluations = [log for log in trainer.state.log_history if "eval_rewards/even_digits/mean" in log]
    assert not any(key.endswith("/lowest") for log in evaluations for key in log)


def test_completions_table_carries_the_weights(build: Build, problems: Dataset, tmp_path: Path) -> None:
    trainer = build(
        trainer_class=Recorder,
        log_completions=True,
        logging_steps=4,  # two generations of two updates: the table keeps the last
        trainer_kwargs={"eval_dataset": problems.select(range(4))},
        eval_strategy="steps",
        eval_steps=3,
        per_device_eval_batch_size=4,
        num_generations_eval=2,
    )
    trainer.train()
    table = pd.read_parquet(tmp_path / "out" / "completions" / "completions_00004.parquet")
    assert len(table) == 8
    # the evaluation at update 3 pushed its 8 rows in; they had no update
    assert table["weight_mean"].isna().all()

    trainer = build(trainer_class=Recorder, log_completions=True, logging_steps=2)
    trainer.train()
    table = pd.read_parquet(tmp_path / "out" / "completions" / "completions_00004.parquet")
    weights = [
        (update["weighted"] / update["base"].unsqueeze(1)).masked_fill(~update["mask"], float("nan"))
        for update in trainer.seen[2:]
    ]
    expected = sorted(row[~row.isnan()].mean().item() for part in weights for row in part if not row.isnan().all())
    largest = max(row[~row.isnan()].max().item() for part in weights for row in part if not row.isnan().all())
    assert sorted(table["weight_mean"]) == pytest.approx(expected, abs=1e-4)
    assert table["weight_max"].max() == pytest.approx(largest, abs=1e-4)


def test_divergence_is_logged_without_weighting_if_asked(build: Build) -> None:
    ends = []
    for log_divergence in (False, True):
        trainer = build(advantage_weighting="none", log_divergence=log_divergence, num_iterations=2)
        trainer.train()
        assert any("divergence/p95" in log for log in trainer.state.log_history) == log_divergence
        ends.append(parameters(trainer))
    assert same(*ends)


def test_model_card_names_paper_tags_and_weighting(build: Build, tmp_path: Path) -> None:
    trainer = build(save_strategy="steps", save_steps=4, divergence_alpha=-50.0, weight_control="shuffle")
    trainer.train()
    for card in (tmp_path / "out" / "README.md",):
        text = card.read_text()
        assert "2603.22446" in text
        assert "Sparse but Critical" in text
        assert "divergence-weighted-grpo" in text
        assert "D = k3 against old, alpha = -50, s = 1" in text
        assert "`low_k3+shuffle`" in text
        assert text.count("## Advantage weighting") == 1


def test_stock_trainer_is_a_base(build: Build) -> None:
    assert isinstance(build(), GRPOTrainer)


def test_completions_beyond_the_positions_are_refused(build: Build, tiny_model: str) -> None:
    words = (
        rf"^The policy '{tiny_model}' reads 128 tokens; the longest prompt has (\d+), and with "
        r"max_completion_length=(\d+) a response could end at (\d+): lower max_completion_length to \d+, or lengthen"
    )
    with pytest.raises(ValueError, match=r"reads 128 tokens; a prompt has at least 1, .*: lower .* to 127, or"):
        build(max_completion_length=128)
    trainer = build(max_completion_length=127)  # fits after a prompt of one token
    with pytest.raises(ValueError, match=words) as refusal:
        trainer.train()
    numbers = re.match(words, str(refusal.value))
    assert numbers is not None
    assert int(numbers[1]) + int(numbers[2]) == int(numbers[3]) > 128
    long = Dataset.from_dict({"prompt": ["1+" * 60 + "1="] * 8, "solution": ["61"] * 8})
    with pytest.raises(ValueError, match=r"reads 128 tokens; the longest prompt has 12\d"):
        build(trainer_kwargs={"train_dataset": long}).train()
