"""Checkpoints are whole, and a resumed run is the undisturbed one, bit for bit."""

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from helpers.tiny_training import Build, parameters, same
from transformers.trainer_utils import get_last_checkpoint

from tokenshift.trainer import DivergenceGRPOTrainer

SAVING = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 3}


def keep_only(out: Path, step: int) -> None:
    for path in out.glob("checkpoint-*"):
        if int(path.name.split("-")[1]) != step:
            shutil.rmtree(path)


@pytest.mark.parametrize(
    ("stop", "settings"),
    [
        (4, {}),  # on a generation boundary
        (3, {}),  # inside a generation
        (3, {"divergence": "js"}),  # whose divergences are from the policy that sampled it
        (5, {"num_iterations": 2, "weight_control": "shuffle"}),
        (3, {"advantage_weighting": "random_share"}),
        (7, {}),  # in the second epoch: 24 problems, 2 a generation of 2 updates -> 6 problems make 6 updates
        (6, {}),  # at the end of the first
        (5, {"gradient_accumulation_steps": 2, "steps_per_generation": 6}),
    ],
)
def test_resumed_run_is_the_undisturbed_one(
    build: Build, problems: Dataset, tmp_path: Path, stop: int, settings: dict[str, Any]
) -> None:
    few = {"train_dataset": problems.select(range(6))}
    common = {"max_steps": 8, "trainer_kwargs": few, **settings}
    undisturbed = build(**common)
    undisturbed.train()
    expected = parameters(undisturbed)

    first = build(**common, **{**SAVING, "save_total_limit": None})
    first.train()
    assert same(expected, parameters(first)), "saving changed training"
    out = tmp_path / "out"
    keep_only(out, stop)
    resumed = build(**common, **SAVING)
    resumed.train(resume_from_checkpoint=str(out / f"checkpoint-{stop}"))
    assert resumed.state.global_step == 8
    assert same(expected, parameters(resumed))


def test_resumed_at_the_end_makes_no_more_updates(build: Build, tmp_path: Path) -> None:
    finished = build(**SAVING)
    finished.train()
    resumed = build(**SAVING)
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-4"))
    assert resumed.state.global_step == 4
    assert same(parameters(finished), parameters(resumed))


def test_killed_while_saving_leaves_no_torn_checkpoint(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    trainer = build(**SAVING)
    save_optimizer = DivergenceGRPOTrainer._save_optimizer_and_scheduler

    def die_at_three(self: Any, output_dir: str) -> None:
        if self.state.global_step == 3:
            Path(output_dir, "optimizer.pt").write_bytes(b"half a fi")
            raise Killed
        save_optimizer(self, output_dir)

    monkeypatch.setattr(DivergenceGRPOTrainer, "_save_optimizer_and_scheduler", die_at_three)
    with pytest.raises(Killed):
        trainer.train()
    out = tmp_path / "out"
    assert sorted(path.name for path in out.glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-2"]
    monkeypatch.undo()
    resumed = build(**SAVING)
    resumed.train(resume_from_checkpoint=get_last_checkpoint(str(out)))
    assert sorted(path.name for path in out.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-3", "checkpoint-4"]
    assert not (out / ".incomplete").exists()


def test_a_checkpoint_of_another_shape_is_resumed_with_new_completions(build: Build, tmp_path: Path) -> None:
    build(**SAVING, max_steps=3).train()
    trainer = build(**SAVING, steps_per_generation=4, max_steps=5)
    trainer.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-3"))
    assert trainer.state.global_step == 5


def test_old_distributions_of_a_checkpoint_without_the_head_get_new_completions(build: Build, tmp_path: Path) -> None:
    build(**SAVING, divergence="js", max_steps=3).train()
    checkpoint = tmp_path / "out" / "checkpoint-3"
    assert not (checkpoint.parent / "checkpoint-2" / "rollout_head_0.pt").exists(), "between two generations"
    (checkpoint / "rollout_head_0.pt").unlink()
    (checkpoint / "manifest.json").unlink()
    trainer = build(**SAVING, divergence="js", max_steps=6)
    trainer.train(resume_from_checkpoint=str(checkpoint))
    assert trainer.state.global_step == 6


def test_best_checkpoint_is_named_by_its_final_path(build: Build, problems: Dataset, tmp_path: Path) -> None:
    trainer = build(
        **{**SAVING, "save_steps": 2},
        eval_strategy="steps",
        eval_steps=2,
        per_device_eval_batch_size=4,
        load_best_model_at_end=True,
        metric_for_best_model="reward",
        trainer_kwargs={"eval_dataset": problems.select(range(4))},
    )
    trainer.train()
    best = trainer.state.best_model_checkpoint
    assert best is not None
    assert Path(best).parent == tmp_path / "out"
    assert torch.isfinite(torch.cat([value.flatten() for value in parameters(trainer).values()])).all()


def test_only_parameters_that_are_nowhere_in_a_checkpoint_are_missed(
    build: Build, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    trainer = build(max_steps=1)
    model = trainer.model
    model.lm_head.weight = model.get_input_embeddings().weight  # as models with tie_word_embeddings have it
    embedding = next(name for name, value in model.named_parameters() if value is model.lm_head.weight)
    state = {name: value for name, value in model.state_dict().items() if name != "lm_head.weight"}
    trainer._issue_warnings_after_load(model.load_state_dict(state, strict=False))
    assert caplog.records == []
    del state[embedding]
    trainer._issue_warnings_after_load(model.load_state_dict(state, strict=False))
    trainer._issue_warnings_after_load(model.load_state_dict({**model.state_dict(), "more": embedding}, strict=False))
    told = list(dict.fromkeys(record.getMessage() for record in caplog.records))
    assert len(told) == 2
    assert "missing keys" in told[0]
    assert embedding in told[0]
    assert "unexpected keys" in told[1]
