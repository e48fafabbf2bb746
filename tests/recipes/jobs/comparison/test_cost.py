"""The estimate of what a comparison takes."""

from typing import Any

from tokenshift.recipes.jobs.comparison import cost as comparison_cost
from tokenshift.trainer import DivergenceGRPOConfig


def test_updates_of_epochs() -> None:
    settings = {"num_train_epochs": 2, "per_device_train_batch_size": 16, "num_generations": 8}
    args = DivergenceGRPOConfig(use_cpu=True, bf16=False, advantage_weighting="none", **settings)
    variant: Any = type("Variant", (), {"args": args})
    comparison: Any = type("Comparison", (), {"variants": {"dapo": variant}, "baseline": "dapo"})
    comparison.launch = type("Launch", (), {"num_processes": 4})
    assert comparison_cost._updates(comparison, "data  pocket, 2,048 training and 8 held-out problems") == 512
