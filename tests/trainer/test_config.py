"""Settings that are refused before anything is loaded, and the words of the messages."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from helpers.tiny_training import digit_reward
from trl import GRPOConfig, RLOOConfig, RLOOTrainer

from tokenshift.trainer import DivergenceGRPOConfig, DivergenceGRPOTrainer


def make(tmp_path: Path, **settings: Any) -> DivergenceGRPOConfig:
    defaults = {"num_iterations": 2, "use_cpu": True, "bf16": False, "report_to": []}
    return DivergenceGRPOConfig(output_dir=str(tmp_path), **{**defaults, **settings})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"advantage_weighting": "sigmoidal"},
            "advantage_weighting='sigmoidal' is no weighting; did you mean sigmoid?",
        ),
        ({"divergence": "k4"}, "divergence='k4' is no divergence. Known are k3, k1, k2, js, forward_kl, reverse_kl"),
        ({"divergence_reference": "new"}, "divergence_reference='new' is not known"),
        ({"weight_control": "permute"}, "weight_control='permute' is not known"),
        ({"divergence_alpha": float("nan")}, "divergence_alpha=nan must be a finite number"),
        ({"divergence_alpha": float("inf")}, "divergence_alpha=inf must be a finite number"),
        ({"divergence_alpha": "steep"}, "divergence_alpha='steep' must be a finite number"),
        ({"divergence_scale": float("inf")}, "divergence_scale=inf must be a finite number"),
        ({"divergence_scale": -1.0}, "divergence_scale=-1.0 must be >= 0"),
        ({"divergence_scale": 3.0, "divergence_alpha": -1.0}, "weights fall to 1 - s/2 < 0"),
        ({"low_prob_coef": -0.1}, "low_prob_coef=-0.1 must be >= 0"),
        ({"divergence_alpha": 1e39}, r"divergence_alpha=1e\+39 is beyond 1e\+30"),
        ({"advantage_weighting": "low_prob", "low_prob_coef": 0.0}, "low_prob_coef=0 makes every weight 1"),
        ({"loss_type": "foo"}, "loss_type='foo' is not known; choose one of grpo"),
        ({"num_generations": 0}, "num_generations=0 must be at least 1"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps=0 must be at least 1"),
        ({"temperature": 0.0}, "temperature=0.0 must be positive"),
        ({"divergence_alpha": 0.0}, "divergence_alpha=0 makes every weight 1"),
        ({"importance_sampling_level": "sequence"}, "importance_sampling_level='sequence' gives one ratio a sequence"),
        ({"loss_type": "luspo"}, "loss_type='luspo' weighs whole sequences"),
        ({"loss_type": "vespo"}, "loss_type='vespo' weighs whole sequences"),
        ({"weight_control": "mean", "normalize_weights": True}, "makes every weight 1"),
        (
            {"expected_updates_per_generation": 4, "steps_per_generation": 2, "num_iterations": 1},
            "expected_updates_per_generation=4, but 2 follow from",
        ),
        (
            {"expected_updates_per_generation": 4, "steps_per_generation": 2, "gradient_accumulation_steps": 3},
            "with this number of processes give steps_per_generation=6.",
        ),
        (
            {"expected_updates_per_generation": 3, "generation_batch_size": 16, "num_iterations": 1},
            "give batch sizes whose product in the brackets is 5.33333.",
        ),
        ({"expected_updates_per_generation": 0}, "expected_updates_per_generation=0 must be a whole number"),
        ({"expected_updates_per_generation": True}, "expected_updates_per_generation=True must be a whole number"),
        ({"dynamic_sampling_max_rounds": 0}, "dynamic_sampling_max_rounds=0 must be a whole number of at least 1"),
        ({"dynamic_sampling_max_rounds": 2.5}, "dynamic_sampling_max_rounds=2.5 must be a whole number"),
        (
            {"dynamic_sampling": True, "dynamic_sampling_max_rounds": 1},
            "dynamic_sampling_max_rounds=1 leaves no round",
        ),
        (
            {"dynamic_sampling": True, "multi_objective_aggregation": "normalize_then_sum"},
            "multi_objective_aggregation='normalize_then_sum' normalises over the batch",
        ),
    ],
)
def test_refused(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("(", r"\(").replace("*", r"\*").replace("?", r"\?")) as error:
        make(tmp_path, **settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("schedule", "vary"),
    [
        ({"num_iterations": 1}, False),
        ({"num_iterations": 1, "gradient_accumulation_steps": 4}, False),
        ({"num_iterations": 1, "gradient_accumulation_steps": 4, "steps_per_generation": 2}, False),
        ({"num_iterations": 2}, True),
        ({"num_iterations": 1, "steps_per_generation": 2}, True),
        ({"num_iterations": 1, "gradient_accumulation_steps": 4, "steps_per_generation": 8}, True),
        ({"num_iterations": 1, "gradient_accumulation_steps": 4, "steps_per_generation": 6}, True),
    ],
)
def test_constant_weights_are_refused_naming_the_setting(tmp_path: Path, schedule: dict[str, int], vary: bool) -> None:
    if vary:
        make(tmp_path, **schedule)
    else:
        with pytest.raises(ValueError, match=r"Set num_iterations or steps_per_generation higher, for example"):
            make(tmp_path, **schedule)
    make(tmp_path, advantage_weighting="none", **schedule)
    make(tmp_path, advantage_weighting="low_prob", **schedule)


def test_updates_per_generation(tmp_path: Path) -> None:
    config = make(tmp_path, num_iterations=3, gradient_accumulation_steps=2, steps_per_generation=8)
    assert config.updates_per_generation == 12


def test_stock_config_is_refused_by_the_trainer(tmp_path: Path, tiny_model: str) -> None:
    args = GRPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False)
    with pytest.raises(TypeError, match="args is a GRPOConfig; DivergenceGRPOTrainer needs a DivergenceGRPOConfig"):
        DivergenceGRPOTrainer(model=tiny_model, args=args)


def test_rloo_is_refused_in_words(tiny_model: str, problems: Dataset, tmp_path: Path) -> None:
    words = "RLOO has one ratio a sequence, so weights of single tokens have no meaning there"
    with pytest.raises(AttributeError, match=f"is for DivergenceGRPOTrainer. {words}"):
        RLOOTrainer(tiny_model, digit_reward, make(tmp_path), problems)
    rloo = RLOOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to=[])
    with pytest.raises(TypeError, match=f"args is a RLOOConfig; .* {words}"):
        DivergenceGRPOTrainer(tiny_model, digit_reward, rloo, problems)


@pytest.mark.parametrize(
    "settings",
    [{"beta": np.float32("nan")}, {"learning_rate": np.float32(-1)}, {"seed": np.int64(-1)}, {"max_steps": 10**400}],
)
def test_numbers_of_numpy_and_beyond_floats(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))) as error:
        make(tmp_path, **settings)
    assert "\n" not in str(error.value)
