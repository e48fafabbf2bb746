"""Pickles: weights and states are taken, whatever could run something is refused without being run."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tokenshift.analysis.storage.pickles import check_checkpoint, check_pickle


class Runs:
    """An object whose pickle makes a file when it is read carelessly."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.file}",)


class Evaluates(Runs):
    """The same by `eval`, which a list of forbidden modules may forget."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return eval, (f"open({str(self.file)!r}, 'w')",)


@pytest.mark.parametrize("kind", [Runs, Evaluates])
@pytest.mark.parametrize("zipped", [True, False])
def test_what_could_run_is_refused_and_not_run(kind: type[Runs], zipped: bool, tmp_path: Path) -> None:
    file, ran = tmp_path / "pytorch_model.bin", tmp_path / "ran"
    held = {"weight": torch.zeros(2), "state": kind(ran)}
    torch.save(held, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"pytorch_model.bin is a pickle that .*, and is not read") as raised:
        check_pickle(file)
    assert len(str(raised.value).splitlines()) == 1
    file.write_bytes(pickle.dumps(kind(ran), protocol=4))
    with pytest.raises(ValueError, match=r"pytorch_model\.bin is"):
        check_pickle(file)
    assert not ran.exists()


def test_the_files_of_a_checkpoint_are_taken(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    numbers = {"numpy": np.random.RandomState(0).get_state(), "cpu": torch.get_rng_state()}
    states = {"optimizer.pt": optimizer.state_dict(), "scheduler.pt": scheduler.state_dict(), "rng_state.pth": numbers}
    for name, state in states.items():
        torch.save(state, tmp_path / name)
    torch.save(Runs(tmp_path / "ran"), tmp_path / "training_args.bin")  # which nothing reads
    check_checkpoint(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_damaged_file_is_said_to_be_damaged(tmp_path: Path) -> None:
    file = tmp_path / "optimizer.pt"
    torch.save({"weight": torch.zeros(1000)}, file)
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"The checkpoint .* cannot be resumed from: optimizer.pt is"):
        check_checkpoint(tmp_path)
    file.write_bytes(b"")
    with pytest.raises(ValueError, match=r"optimizer.pt is damaged"):
        check_checkpoint(tmp_path)
