"""Damaged checkpoints are never resumed from: the newest whole one is, and the result is the undisturbed run's."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from helpers.tiny_training import SETTINGS, digit_reward, parameters, same
from peft import LoraConfig
from trl import GRPOConfig, GRPOTrainer

from tokenshift.analysis.storage import manifest
from tokenshift.analysis.storage.damage import DamagedFileError
from tokenshift.analysis.storage.manifest import MANIFEST_FILE, manifest_fault, write_manifest
from tokenshift.recipes.command_line.resuming import checkpoint_to_resume
from tokenshift.recipes.jobs.training.arguments import parse_arguments
from tokenshift.trainer import DivergenceGRPOConfig, DivergenceGRPOTrainer
from tokenshift.trainer.resume.checkpoints import save_whole_model
from tokenshift.trainer.resume.examination import (
    examine,
    last_whole,
    leave_behind,
    named_checkpoint,
    newest_whole,
)

UPDATES = 4
SAVING = {"save_strategy": "steps", "save_steps": 1, "max_steps": UPDATES, "dynamic_sampling": False}


def remove(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 1
    path.write_bytes(content)


def zero(path: Path) -> None:
    """A part of the contents, as a crash leaves it where blocks were never written."""
    content = bytearray(path.read_bytes())
    start = len(content) // 2
    content[start : start + 64] = bytes(len(content[start : start + 64]))
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES: list[Callable[[Path], None]] = [remove, truncate, flip_a_bit, zero, empty]


class Training:
    """Trains the tiny model in a folder, always with the same settings.

    Args:
        model: the tiny model's folder.
        problems: what it learns from.
        out: the run's folder.
        settings: over those of all runs here.
    """

    def __init__(self, model: str, problems: Dataset, out: Path, **settings: Any) -> None:
        self.model, self.problems, self.out, self.settings = model, problems, out, settings

    def trainer(self, out: Path | None = None, stock: bool = False, **settings: Any) -> GRPOTrainer:
        known = {**SETTINGS, **SAVING, **self.settings, **settings, "output_dir": str(out or self.out)}
        peft_config = LoraConfig(r=2, target_modules=["q_proj"]) if known.pop("adapter", False) else None
        if stock:
            known.pop("dynamic_sampling")
        config, trainer = (GRPOConfig, GRPOTrainer) if stock else (DivergenceGRPOConfig, DivergenceGRPOTrainer)
        return trainer(
            model=self.model,
            args=config(**known),
            reward_funcs=digit_reward,
            train_dataset=self.problems,
            peft_config=peft_config,
        )


@pytest.fixture(scope="module", params=["whole model", "adapter"])
def finished(
    request: pytest.FixtureRequest, tiny_model: str, problems: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Training, dict[str, torch.Tensor]]:
    """A training that ended undisturbed, with a checkpoint of every update, and its parameters."""
    training = Training(
        tiny_model, problems, tmp_path_factory.mktemp("run") / "out", adapter=request.param == "adapter"
    )
    trainer = training.trainer()
    trainer.train()
    return training, parameters(trainer)


def copied(training: Training, folder: Path) -> Path:
    """A copy of a run's folder, to be damaged."""
    return Path(shutil.copytree(training.out, folder / "out"))


def test_every_damage_of_every_file_is_seen(finished: Any, tmp_path: Path) -> None:
    training, _ = finished
    out = copied(training, tmp_path)
    checkpoint, whole = out / f"checkpoint-{UPDATES}", out / f"checkpoint-{UPDATES - 1}"
    files = [path.relative_to(checkpoint) for path in checkpoint.rglob("*") if path.is_file()]
    state = {"optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "generation_state_0.pt"}
    assert state <= {str(file) for file in files}
    for file in files:
        for damage in DAMAGES:
            if str(file) == MANIFEST_FILE and damage is remove:
                continue  # as a checkpoint of stock TRL, which has none
            content = (checkpoint / file).read_bytes()
            damage(checkpoint / file)
            if (checkpoint / file).exists() and (checkpoint / file).read_bytes() == content:
                continue  # zeros that were zeros before, as in an empty file
            fault = examine(checkpoint).fault
            assert fault is not None, (file, damage)
            assert file.name in fault or str(file) == MANIFEST_FILE, (file, damage, fault)
            point = newest_whole(out)
            assert point.checkpoint == whole
            assert f"{checkpoint} is passed over: {fault}." in point.remarks
            (checkpoint / file).write_bytes(content)
            assert examine(checkpoint).fault is None


@pytest.mark.parametrize("file", ["optimizer.pt", "weights"])
def test_a_resume_from_the_newest_whole_checkpoint_is_the_undisturbed_run(
    finished: Any, tmp_path: Path, file: str, caplog: pytest.LogCaptureFixture
) -> None:
    training, expected = finished
    out = copied(training, tmp_path)
    newest = out / f"checkpoint-{UPDATES}"
    weights = "adapter_model.safetensors" if training.settings["adapter"] else "model.safetensors"
    file = weights if file == "weights" else file
    (remove if file == "optimizer.pt" else flip_a_bit)(newest / file)

    with pytest.raises(DamagedFileError, match=rf"checkpoint-4' is not used: {file}.* go on from \S+checkpoint-3"):
        training.trainer(out).train(resume_from_checkpoint=str(newest))
    resumed = training.trainer(out, save_total_limit=2)
    resumed.train(resume_from_checkpoint=True)
    assert f"checkpoint-4 is passed over: {file}" in caplog.text
    assert "The run goes on from checkpoint-3." in caplog.text
    assert same(expected, parameters(resumed))
    assert examine(newest).fault is None  # it was made again
    assert sorted(path.name for path in out.glob("checkpoint-*")) == ["checkpoint-3", "checkpoint-4"]


def test_a_run_without_a_whole_checkpoint_is_refused(finished: Any, tmp_path: Path) -> None:
    training, _ = finished
    out = copied(training, tmp_path)
    for checkpoint in out.glob("checkpoint-*"):
        remove(checkpoint / "scheduler.pt")
    with pytest.raises(DamagedFileError, match=r"No checkpoint in \S+ can be used\. .*checkpoint-1 is passed over"):
        training.trainer(out).train(resume_from_checkpoint=True)
    words = ["--output_dir", str(out), "--resume_from_checkpoint"]
    for asked in ("true", str(out / "checkpoint-2")):
        with pytest.raises(ValueError, match=r"scheduler\.pt is missing"):
            checkpoint_to_resume(parse_arguments([*words, asked])[1], overwrite=False)


def test_a_damaged_checkpoint_beside_a_later_update_is_deleted_first(finished: Any, tmp_path: Path) -> None:
    """A run that went back to update 1 keeps what it saves, not the damaged checkpoints of later updates."""
    training, _ = finished
    out = copied(training, tmp_path)
    for step in (2, 3, 4):
        empty(out / f"checkpoint-{step}" / "trainer_state.json")
    training.trainer(out, max_steps=2, save_total_limit=1).train(resume_from_checkpoint=True)
    assert [path.name for path in out.glob("checkpoint-*")] == ["checkpoint-2"]
    assert examine(out / "checkpoint-2").fault is None


def test_a_course_that_was_left_is_not_gone_on_with_in_silence(
    finished: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    training, _ = finished
    out = copied(training, tmp_path)
    newest = {step: out / f"checkpoint-{step}" for step in range(1, UPDATES + 1)}
    training.trainer(out, max_steps=3, learning_rate=1e-3).train(resume_from_checkpoint=str(newest[2]))
    assert (
        "goes on from checkpoint-2, and leaves checkpoint-3, checkpoint-4 of its former course behind" in caplog.text
    )
    # checkpoint-3 was made anew, checkpoint-4 was not reached
    point = newest_whole(out)
    assert point.checkpoint == newest[3]
    assert "checkpoint-4 is passed over: the run went on from checkpoint-2 later" in " ".join(point.remarks)
    assert last_whole(out) == newest[3]
    assert named_checkpoint(newest[4]).checkpoint == newest[4], "it is there for whoever asks for it"
    assert leave_behind(newest[4]) == []
    assert newest_whole(out).checkpoint == newest[4]
    for checkpoint in out.glob("checkpoint-[12]"):
        shutil.rmtree(checkpoint)
    shutil.rmtree(newest[3])
    (newest[4] / "left_behind.json").write_text("{")
    with pytest.raises(DamagedFileError, match="the run went on from another one later"):
        newest_whole(out)


# Without a manifest ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stock(tiny_model: str, problems: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """A training by stock TRL."""
    training = Training(tiny_model, problems, tmp_path_factory.mktemp("stock") / "out", max_steps=2)
    training.trainer(stock=True).train()
    return training


def test_a_checkpoint_of_stock_trl_is_accepted_with_a_line(
    stock: Training, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = copied(stock, tmp_path)
    stock.trainer(out, max_steps=3).train(resume_from_checkpoint=True)
    assert f"checkpoint-2 has no {MANIFEST_FILE}, as of stock TRL or an older version" in caplog.text
    assert examine(out / "checkpoint-3").remark is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{}", "how many updates"),
        ('{"global_step": "2", "log_history": []}', "global_step='2'"),
        ('{"global_step": -2, "log_history": []}', "global_step=-2"),
        ('{"global_step": 2}', "no log_history"),
        ('{"global_step": 2, "log_history": [3]}', "no log_history"),
        ('{"global_step": 2, "log_history": [], "epoch": "one"}', "epoch='one'"),
        ('{"global_step": 2, "log_history": [], "future": 1}', "does not know its future"),
        ("[1, 2]", "is damaged"),
        ("[" * 100_000, "is damaged"),
        ('{"global_step": ' + "9" * 5000 + "}", "is damaged"),
    ],
)
def test_a_state_of_another_kind_is_seen(stock: Training, tmp_path: Path, content: str, said: str) -> None:
    checkpoint = copied(stock, tmp_path) / "checkpoint-2"
    (checkpoint / "trainer_state.json").write_text(content)
    fault = examine(checkpoint).fault
    assert fault is not None
    assert fault.startswith("trainer_state.json is ")
    assert said in fault


def test_headers_that_are_nested_without_end(stock: Training, tmp_path: Path) -> None:
    checkpoint = copied(stock, tmp_path) / "checkpoint-2"
    deep = b"[" * 100_000
    (checkpoint / "model.safetensors").write_bytes(len(deep).to_bytes(8, "little") + deep)
    assert examine(checkpoint).fault == "model.safetensors is damaged"
    (checkpoint / "model.safetensors").rename(checkpoint / "model.safetensors.index.json")
    (checkpoint / "model.safetensors.index.json").write_bytes(deep)
    assert examine(checkpoint).fault == "model.safetensors.index.json is damaged"
    (checkpoint / MANIFEST_FILE).write_bytes(deep)
    assert examine(checkpoint).fault == f"{MANIFEST_FILE} is damaged"


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json"])
def test_what_shows_without_a_manifest_is_seen(stock: Training, tmp_path: Path, file: str) -> None:
    checkpoint = copied(stock, tmp_path) / "checkpoint-2"
    content = (checkpoint / file).read_bytes()
    for damage in (truncate, empty):
        damage(checkpoint / file)
        assert examine(checkpoint).fault == f"{file} is damaged"
    (checkpoint / file).write_bytes(content)
    (checkpoint / file).unlink()
    told = examine(checkpoint)
    if file in ("optimizer.pt", "rng_state.pth"):
        name = {"optimizer.pt": "optimizer", "rng_state.pth": "random numbers"}[file]
        assert told.fault is None
        assert f"no state of the {name}, which begin anew" in str(told.remark)
    else:
        assert told.fault in (f"{file} is missing", "its weights are missing")


# Folders of several ranks and shards -------------------------------------------------------------------------------

SHARDED = [
    *("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"),
    *("rng_state_0.pth", "rng_state_1.pth", "rng_state_7.pth", "generation_state_1.pt"),
    *("global_step4/zero_pp_rank_0_mp_rank_00_model_states.pt", "global_step4/zero_pp_rank_1_mp_rank_00_optim.pt"),
    *("pytorch_model_fsdp_0/__0_0.distcp", "pytorch_model_fsdp_0/.metadata", "optimizer_0/__1_0.distcp", "latest"),
    *("policy/adapter_model.safetensors", "ref/adapter_model.safetensors"),
]
"""Files of checkpoints that DeepSpeed, FSDP, several ranks, several adapters and large models leave."""


@pytest.mark.parametrize("file", SHARDED)
def test_shards_are_in_the_manifest(tmp_path: Path, file: str) -> None:
    for name in SHARDED:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode() * 50)
    write_manifest(tmp_path)
    assert manifest_fault(tmp_path) is None
    for damage in DAMAGES:
        content = (tmp_path / file).read_bytes()
        damage(tmp_path / file)
        assert str(manifest_fault(tmp_path)).startswith(f"{file} ")
        (tmp_path / file).write_bytes(content)


def test_a_missing_shard_shows_without_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "trainer_state.json").write_text('{"global_step": 4, "log_history": []}')
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    header = b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}'
    whole = len(header).to_bytes(8, "little") + header + b"1234"
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(whole)
    assert examine(tmp_path).fault == "model-00002-of-00002.safetensors is missing"
    (tmp_path / "model-00002-of-00002.safetensors").write_bytes(whole[:-1])
    assert examine(tmp_path).fault == "model-00002-of-00002.safetensors is damaged"


def test_large_files_are_hashed_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "WHOLE_BYTES", 2**20)
    monkeypatch.setattr(manifest, "BLOCKS", 16)
    file = tmp_path / "model.safetensors"
    content = bytes(range(256)) * 2**14  # 4 MiB
    file.write_bytes(content)
    write_manifest(tmp_path)
    assert manifest_fault(tmp_path) is None
    for start in (0, 2**20, len(content) - 1):  # the first and the last byte are in a block, and so is any long gap
        end = min(start + 2**19, len(content))
        file.write_bytes(content[:start] + bytes(end - start) + content[end:])
        assert manifest_fault(tmp_path) == "model.safetensors does not have the contents that were saved"
    file.write_bytes(content[:-1])
    assert manifest_fault(tmp_path) == f"model.safetensors has {len(content) - 1} bytes, but {len(content)} were saved"


def test_a_saved_model_has_a_manifest(finished: Any, tmp_path: Path) -> None:
    training, _ = finished
    save_whole_model(training.trainer(tmp_path / "out"), tmp_path / "out" / "model")
    assert manifest_fault(tmp_path / "out" / "model") is None
