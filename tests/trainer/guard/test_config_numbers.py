"""Numbers of a training config that are not finite, or outside the range where they mean something."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_training import SETTINGS
from trl import GRPOConfig, SFTConfig

from tokenshift.trainer import DivergenceGRPOConfig
from tokenshift.trainer.guard.config_numbers import RANGES, check_config_numbers

NAN, INF = float("nan"), float("inf")
REFUSED = (
    ({"beta": NAN}, "beta=nan must be a finite number."),
    ({"beta": -0.1}, "beta=-0.1 must be at least 0."),
    ({"epsilon": -0.2}, "epsilon=-0.2 must be at least 0."),
    ({"epsilon_high": INF}, "epsilon_high=inf must be a finite number."),
    ({"learning_rate": NAN}, "learning_rate=nan must be a finite number."),
    ({"learning_rate": -1e-3}, "learning_rate=-0.001 must be at least 0."),
    ({"learning_rate": 1e35}, "learning_rate=1e+35 is beyond 1e+30, where float32 overflows."),
    ({"max_steps": -3}, "max_steps=-3 must be at least 1, or -1."),
    ({"seed": -1}, "seed=-1 must be at least 0 and at most 4294967295."),
    ({"seed": 2**32}, "seed=4294967296 must be at least 0 and at most 4294967295."),
    ({"max_grad_norm": -1.0}, "max_grad_norm=-1.0 must be at least 0."),
    ({"max_grad_norm": INF}, "max_grad_norm=inf must be a finite number."),
    ({"top_p": 1.5}, "top_p=1.5 must be positive and at most 1."),
    ({"top_p": NAN}, "top_p=nan must be a finite number."),
    ({"temperature": INF}, "temperature=inf must be a finite number."),
    ({"weight_decay": -0.1}, "weight_decay=-0.1 must be at least 0."),
    ({"adam_beta2": 1.0}, "adam_beta2=1.0 must be at least 0 and below 1."),
    ({"num_train_epochs": -1.0}, "num_train_epochs=-1.0 must be positive."),
    ({"save_total_limit": -2}, "save_total_limit=-2 must be at least 0."),
    ({"top_k": -5}, "top_k=-5 must be at least 0, or -1."),
    ({"correct_threshold": NAN}, "correct_threshold=nan"),
    ({"probe_top_p": NAN}, "probe_top_p=nan must be a finite number."),
    ({"max_steps": NAN}, "max_steps=nan must be a finite number."),
    ({"top_p": "most"}, "top_p='most' must be a number."),
    ({"probe_steps": 0.5}, "probe_steps=0.5 must be a whole number."),
    ({"seed": "one"}, "seed='one' must be a whole number."),
    ({"reward_weights": [1.0, NAN]}, "reward_weights[1]=nan must be a finite number."),
    ({"lr_scheduler_kwargs": {"num_cycles": NAN}}, "lr_scheduler_kwargs['num_cycles']=nan must be a finite number."),
    ({"generation_kwargs": '{"min_p": NaN}'}, "generation_kwargs['min_p']=nan must be a finite number."),
)


@pytest.mark.parametrize(("settings", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_senseless_numbers_are_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011  # the message is compared whole
        DivergenceGRPOConfig(**{**SETTINGS, "output_dir": str(tmp_path), **settings})
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_every_range_is_of_a_setting_and_holds_its_default(tmp_path: Path) -> None:
    fields = {field.name: field for config in (GRPOConfig, SFTConfig) for field in dataclasses.fields(config)}
    assert RANGES.keys() <= fields.keys(), "a name is misspelt, or gone"
    for name, allowed in RANGES.items():
        default = fields[name].default
        assert not isinstance(default, int | float) or default in allowed, name


@pytest.mark.parametrize("name", ["learning_rate", "weight_decay", "max_grad_norm", "seed", "max_steps"])
def test_supervised_configs_are_checked_too(name: str, tmp_path: Path) -> None:
    args = SFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False)
    check_config_numbers(args)
    setattr(args, name, -7)
    with pytest.raises(ValueError, match=f"{name}=-7 must be at least"):
        check_config_numbers(args)
