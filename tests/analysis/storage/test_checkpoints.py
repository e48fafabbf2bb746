"""Which checkpoints a training's folder has, and which is the newest that can be used."""

import json
from pathlib import Path

import pytest
from transformers.trainer_callback import TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from tokenshift.analysis.storage.checkpoints import (
    CHECKPOINT_PREFIX,
    TRAINER_STATE,
    candidates_of,
    checkpoints_of,
    newest_usable,
)
from tokenshift.trainer.diagnosis.run_record import read_run
from tokenshift.trainer.resume.examination import examine, last_whole, newest_whole


def save(run_dir: Path, step: int) -> Path:
    """A checkpoint without a manifest, as of stock TRL, of a training that logs at every update."""
    folder = run_dir / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    logs = [{"step": update, "loss": 0.1} for update in range(1, step + 1)]
    TrainerState(global_step=step, log_history=logs).save_to_json(str(folder / TRAINER_STATE))
    (folder / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    return folder


def leave(checkpoint: Path) -> None:
    (checkpoint / "left_behind.json").write_text(json.dumps({"went_on_from": "checkpoint-9"}))


def test_checkpoints_are_ordered_by_their_number(tmp_path: Path) -> None:
    assert CHECKPOINT_PREFIX == PREFIX_CHECKPOINT_DIR
    folders = [save(tmp_path, step) for step in (9, 10, 100)]
    for other in ("checkpoint-best", "checkpoint-7.partial", "my-checkpoint-8"):
        (tmp_path / other).mkdir()
    (tmp_path / "checkpoint-200").touch()
    assert checkpoints_of(tmp_path) == folders
    assert checkpoints_of(tmp_path / "nowhere") == []


def test_the_newest_is_looked_at_first_and_no_more_than_needed(tmp_path: Path) -> None:
    folders = [save(tmp_path, step) for step in (1, 2, 3, 4)]
    leave(folders[3])
    asked = []

    def fault(checkpoint: Path) -> str | None:
        asked.append(checkpoint)
        return "torn" if checkpoint == folders[2] else None

    found, passed_over = newest_usable(candidates_of(tmp_path), fault)
    assert (found, asked) == (folders[1], [folders[2], folders[1]])
    assert [path for path, _ in passed_over] == [folders[3], folders[2]]
    assert passed_over[0][1].startswith("the run went on from checkpoint-9 later")
    assert passed_over[1][1] == "torn"
    assert newest_usable(candidates_of(tmp_path), lambda checkpoint: "torn")[0] is None
    assert newest_usable([], fault) == (None, [])


@pytest.mark.parametrize("damaged", ["model.safetensors", TRAINER_STATE])
def test_a_resume_and_the_message_of_a_stopped_run_name_the_same(damaged: str, tmp_path: Path) -> None:
    folders = [save(tmp_path, step) for step in (2, 3, 4)]
    assert newest_whole(tmp_path).checkpoint == last_whole(tmp_path) == folders[2]
    leave(folders[2])
    (folders[1] / damaged).write_text("{")
    assert newest_whole(tmp_path).checkpoint == last_whole(tmp_path) == folders[0]
    assert examine(folders[1]).fault == f"{damaged} is damaged"
    # logs need a readable state alone
    assert read_run(tmp_path).steps[-1] == (3 if damaged == "model.safetensors" else 2)


def test_a_checkpoint_that_cannot_be_read_counts_as_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [save(tmp_path, step) for step in (2, 3)]
    look = Path.rglob

    def fail(self: Path, pattern: str) -> object:
        if self == folders[1]:
            raise OSError(5, "Input/output error")
        return look(self, pattern)

    monkeypatch.setattr(Path, "rglob", fail)
    assert last_whole(tmp_path) == folders[0]


def test_logs_are_read_where_all_was_left_behind(tmp_path: Path) -> None:
    for step in (2, 3):
        leave(save(tmp_path, step))
    assert last_whole(tmp_path) is None
    assert read_run(tmp_path).steps[-1] == 3
