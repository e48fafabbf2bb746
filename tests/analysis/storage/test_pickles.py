"""Pickles: weights and states are taken, whatever could run something is refused without being run."""

import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributed import checkpoint as distributed_checkpoint

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


# Below the top level: DeepSpeed's and FSDP's ---------------------------------------------------------------------


def test_a_harmful_pickle_in_a_folder_of_the_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "global_step4").mkdir()
    torch.save({"module": Runs(tmp_path / "ran")}, tmp_path / "global_step4" / "mp_rank_00_model_states.pt")
    with pytest.raises(ValueError, match=r"from: global_step4/mp_rank_00_model_states\.pt is a pickle that names"):
        check_checkpoint(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_deepspeeds_own_settings_are_taken(tmp_path: Path) -> None:
    loss_scaler = pytest.importorskip("deepspeed.runtime.fp16.loss_scaler")
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    state = {
        "loss_scaler": loss_scaler.LossScaler(scale=1.0),
        "zero_stage": ZeroStageEnum.optimizer_states,
        "param_slice_mappings": [{"a": fragment_address(numel=4, start=0)}],
        "single_partition_of_fp32_groups": [torch.zeros(4)],
        "param_shapes": [{"a": torch.Size([2, 2])}],
    }
    file = tmp_path / "global_step4" / "zero_pp_rank_0_mp_rank_00_optim_states.pt"
    file.parent.mkdir()
    torch.save(state, file)
    check_checkpoint(tmp_path)
    torch.save({**state, "more": Runs(tmp_path / "ran")}, file)
    with pytest.raises(ValueError, match="could run anything"):
        check_checkpoint(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def distributed(tmp_path: Path) -> Path:
    """A checkpoint with a folder as FSDP leaves it, with tensors, numbers and texts."""
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    save_distributed({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "name": "x"}, tmp_path)
    return tmp_path


def save_distributed(state: dict[str, Any], folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no process group
        distributed_checkpoint.save(state, checkpoint_id=folder / "pytorch_model_fsdp_0")


def test_a_distributed_checkpoint_is_taken(distributed: Path) -> None:
    check_checkpoint(distributed)


def test_harmful_metadata_is_refused(distributed: Path) -> None:
    file = distributed / "pytorch_model_fsdp_0" / ".metadata"
    for protocol in range(6):
        file.write_bytes(pickle.dumps(Runs(distributed / "ran"), protocol=protocol))
        with pytest.raises(ValueError, match=r"pytorch_model_fsdp_0/\.metadata is a pickle that names \w+\.system"):
            check_checkpoint(distributed)
    for content in (b"", b"\x80", b"no pickle", pickle.dumps([1])):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"\.metadata is"):
            check_checkpoint(distributed)
    assert not (distributed / "ran").exists()


def test_a_harmful_value_of_a_distributed_checkpoint_is_refused(tmp_path: Path) -> None:
    save_distributed({"extra": Runs(tmp_path / "ran")}, tmp_path)
    with pytest.raises(ValueError, match=r"pytorch_model_fsdp_0/__0_0\.distcp \(extra\) is a pickle that names"):
        check_checkpoint(tmp_path)
    (tmp_path / "pytorch_model_fsdp_0" / "__0_0.distcp").unlink()
    with pytest.raises(ValueError, match=r"__0_0\.distcp \(extra\) is damaged"):
        check_checkpoint(tmp_path)
    assert not (tmp_path / "ran").exists()
