"""Defaults that start, and names of models that stand for none: told in one line, before anything is loaded."""

from pathlib import Path
from typing import Any

import pytest
import torch
from trl import GRPOTrainer

from tokenshift.trainer import DivergenceGRPOConfig, DivergenceGRPOTrainer
from tokenshift.trainer.model_names import unreachable_model


@pytest.mark.skipif(torch.accelerator.is_available(), reason="this machine has an accelerator")
def test_defaults_start_on_a_cpu(tmp_path: Path) -> None:
    args = DivergenceGRPOConfig(output_dir=str(tmp_path), steps_per_generation=4, report_to=[])
    assert (args.use_cpu, args.bf16) == (True, False)
    assert DivergenceGRPOConfig(output_dir=str(tmp_path), steps_per_generation=4, bf16=True).bf16
    with pytest.raises(ValueError, match=r"Set num_iterations or steps_per_generation higher, for example steps_per"):
        DivergenceGRPOConfig(output_dir=str(tmp_path))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{}/nowhere", "is a path, and there is no such folder."),
        ("./nowhere", "is a path, and there is no such folder."),
        ("~/nowhere", "use os.path.expanduser"),
        ("{}", "is a folder without config.json: no model is saved in it."),
        ("{}/file", "is a file; give the folder"),
    ],
)
def test_a_wrong_path_is_told_before_anything_is_loaded(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    args = DivergenceGRPOConfig(output_dir=str(tmp_path / "out"), steps_per_generation=4, report_to=[])

    def load(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(GRPOTrainer, "__init__", load)
    with pytest.raises(ValueError, match=r"^model='") as told:
        DivergenceGRPOTrainer(model=name.format(tmp_path), reward_funcs=len, args=args)
    assert message in str(told.value)
    assert "\n" not in str(told.value)


def test_a_hub_name_that_cannot_be_loaded_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = DivergenceGRPOConfig(output_dir=str(tmp_path), steps_per_generation=4, report_to=[])

    def load(*_: Any, **__: Any) -> None:
        raise OSError("We couldn't connect to the hub.\nCheck your connection.")

    monkeypatch.setattr(GRPOTrainer, "__init__", load)
    with pytest.raises(ValueError, match=r"model='pockett' is no folder here, and no model of the hub") as told:
        DivergenceGRPOTrainer(model="pockett", reward_funcs=len, args=args)
    assert "\n" not in str(told.value)
    assert unreachable_model("pockett", OSError(28, "No space left on device")) is None
    assert unreachable_model(str(tmp_path), OSError("weights are missing")) is None
