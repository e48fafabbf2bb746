"""From which checkpoint a training goes on."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tokenshift.recipes.command_line.resuming import checkpoint_to_resume
from tokenshift.recipes.jobs.training.arguments import parse_arguments


def test_which_checkpoint_is_resumed(tmp_path: Path) -> None:
    def asked(value: str | None, overwrite: bool = False) -> str | None:
        settings = ["--output_dir", str(tmp_path), *(["--resume_from_checkpoint", value] if value else [])]
        return checkpoint_to_resume(parse_arguments(settings)[1], overwrite)

    assert asked("true") is None
    for step in (9, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(
            json.dumps({"global_step": step, "log_history": []})
        )
        save_file({"weight": torch.zeros(1)}, tmp_path / f"checkpoint-{step}" / "model.safetensors")
    assert asked("true") == str(tmp_path / "checkpoint-10")
    assert asked(str(tmp_path / "checkpoint-9")) == str(tmp_path / "checkpoint-9")
    assert asked(None, overwrite=True) is None
    for value in (None, "false"):
        with pytest.raises(ValueError, match=r"holds checkpoint-10 of an earlier run; go on with it by"):
            asked(value)
