"""The record of a real training, by the trainer's own metrics and checkpoint."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_training import Build

from tokenshift.trainer.diagnosis.diagnosis import diagnose
from tokenshift.trainer.diagnosis.run_record import read_run
from tokenshift.trainer.diagnosis.saved_settings import read_settings


def half_rewarded(completions: list[str], **columns: Any) -> list[float | None]:
    """No reward for every second completion."""
    return [None if place % 2 else float(place % 4) for place in range(len(completions))]


def test_missing_rewards_and_settings_of_a_training(build: Build) -> None:
    trainer = build(
        save_strategy="steps",
        save_steps=4,
        divergence_scale=0.5,
        trainer_kwargs={"reward_funcs": half_rewarded},
    )
    trainer.train()
    run = read_run(Path(trainer.args.output_dir))
    assert run.series("rewards/unscored_share").values == (0.5, 0.5)  # two generations of four updates
    found = {sign.name: found for sign, found in diagnose(run)}
    assert "50% of a log's completions had no reward" in found["missing_rewards"].evidence
    settings = run.settings
    assert (settings["divergence_scale"], settings["steps_per_generation"], settings["optim"]) == (
        0.5,
        2,
        str(trainer.args.optim.value),
    )
    assert run.updates_per_generation == trainer.args.updates_per_generation == 2


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit('it ran')",)


@pytest.mark.parametrize("content", [pickle.dumps(Trap()), b"\x80\x02garbage", b""])
def test_nothing_in_a_settings_file_is_run(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "training_args.bin"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("training_args/data.pkl", content)
    assert read_settings(file) == {}
    file.write_bytes(content)
    assert read_settings(file) == {}
