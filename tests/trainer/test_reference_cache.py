"""Where the reference's states are kept: valid tokens alone, in host memory, never copied whole, within a budget."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.recorded_updates import Recorder
from helpers.tiny_training import Build, parameters, same
from peft import LoraConfig

from tokenshift.trainer import reference_cache
from tokenshift.trainer.reference import REFERENCE_HIDDEN
from tokenshift.trainer.reference_cache import host_rows, on_device

BASE = {"divergence": "js", "divergence_reference": "base"}


def test_rows_share_allocations_up_to_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_cache, "BLOCK", 4 * 8 * 10)  # ten tokens of eight float32
    rows = host_rows([4, 0, 6, 3, 25, 2], 8, torch.float32, pinned=False)
    assert [tuple(row.shape) for row in rows] == [(4, 8), (0, 8), (6, 8), (3, 8), (25, 8), (2, 8)]
    blocks = [row.untyped_storage().data_ptr() for row in rows if len(row)]
    assert [blocks.index(block) for block in blocks] == [0, 0, 2, 3, 4], "10 tokens, 3, 25 (longer than a block), 2"
    for index, row in enumerate(rows):
        row.fill_(index)
    assert on_device(rows, torch.device("cpu"))[:, 0].tolist() == [0.0] * 4 + [2.0] * 6 + [3.0] * 3 + [4.0] * 25 + [
        5.0,
        5.0,
    ]


class Watcher(Recorder):
    """Keeps what the buffered micro-batches hold of the reference at every update."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.kept: list[list[Any]] = []
        super().__init__(*args, **kwargs)

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        if self.model.training:
            self.kept.append([batch.get(REFERENCE_HIDDEN) for batch in self._buffered_inputs])
        return super()._compute_loss(model, inputs)


@pytest.mark.parametrize("divergence_reference", ["base", "old"])
def test_only_valid_tokens_are_kept_once_and_in_the_dtype_they_are_multiplied_in(
    build: Build, divergence_reference: str
) -> None:
    trainer = build(
        trainer_class=Watcher, divergence="js", divergence_reference=divergence_reference, bf16=True, max_steps=2
    )
    trainer.train()
    rows = [row for batch in trainer.kept[0] for row in batch]
    valid = [int(count) for seen in trainer.seen[:2] for count in seen["inputs"]["completion_mask"].sum(dim=1)]
    assert [len(row) for row in rows] == valid
    assert min(valid) < max(valid), "there is padding, which is not kept"
    assert {row.dtype for row in rows} == {torch.bfloat16}
    storages = {row.untyped_storage().data_ptr(): row.untyped_storage().nbytes() for row in rows}
    assert list(storages.values()) == [sum(valid) * rows[0].shape[1] * 2], "TRL's shuffle has copied nothing"
    if divergence_reference == "old":
        assert trainer._reference._old_head.weight.dtype == torch.bfloat16


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_iterations": 2},
        {"gradient_accumulation_steps": 2, "steps_per_generation": 4, "max_steps": 3},
        {"trainer_kwargs": {"peft_config": LoraConfig(r=4, target_modules="all-linear")}},
    ],
)
def test_states_computed_anew_give_the_divergences_of_kept_ones(build: Build, settings: dict[str, Any]) -> None:
    runs = []
    for budget in (16.0, 0.0):
        trainer = build(trainer_class=Watcher, reference_cache_gib=budget, **BASE, **settings)
        trainer.train()
        assert all((states is None) == (budget == 0) for update in trainer.kept for states in update)
        runs.append(trainer)
    for kept, anew in zip(runs[0].seen, runs[1].seen, strict=True):
        torch.testing.assert_close(kept["divergence"], anew["divergence"], atol=1e-6, rtol=1e-4)
    assert float(runs[1].seen[-1]["divergence"].max()) > 1e-4
    for name, value in parameters(runs[0]).items():
        torch.testing.assert_close(value, parameters(runs[1])[name], atol=1e-5, rtol=1e-4)


def test_the_rollout_policys_are_kept_beyond_the_budget_and_told(build: Build, caplog: Any) -> None:
    with caplog.at_level("WARNING"):
        trainer = build(trainer_class=Watcher, divergence="js", reference_cache_gib=0.0)
        trainer.train()
    assert all(states is not None for update in trainer.kept for states in update)
    told = [record.message for record in caplog.records if "more than reference_cache_gib=0" in record.message]
    assert len(told) == 1
    assert "divergence_reference='base' keeps to it" in told[0]


def test_the_last_generations_states_are_let_go_before_new_ones_are_made(build: Build) -> None:
    held: list[Any] = []

    class Reader(Watcher):
        def _generate(self, prompts: list[Any]) -> Any:
            held.append([batch.get(REFERENCE_HIDDEN) for batch in self._buffered_inputs or ()])
            return super()._generate(prompts)

    build(trainer_class=Reader, **BASE).train()
    assert held == [[], [None, None]]


@pytest.mark.parametrize("budget", [16.0, 0.0])
def test_resumed_inside_a_generation(build: Build, tmp_path: Path, budget: float) -> None:
    settings = {**BASE, "reference_cache_gib": budget, "max_steps": 5, "save_strategy": "steps", "save_steps": 1}
    undisturbed = build(**settings)
    undisturbed.train()
    file = tmp_path / "out" / "checkpoint-3" / "generation_state_0.pt"
    buffered = torch.load(file, weights_only=True)["buffered_inputs"]
    assert all((REFERENCE_HIDDEN in batch) == (budget > 0) for batch in buffered)
    expected = parameters(undisturbed)
    resumed = build(**settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-3"))
    assert same(expected, parameters(resumed))


def test_a_checkpoint_with_states_of_all_tokens_is_still_read(build: Build, tmp_path: Path) -> None:
    settings = {**BASE, "max_steps": 5, "save_strategy": "steps", "save_steps": 1}
    undisturbed = build(**settings)
    undisturbed.train()
    file = tmp_path / "out" / "checkpoint-3" / "generation_state_0.pt"
    state = torch.load(file, weights_only=True)
    for batch in state["buffered_inputs"]:
        mask = batch["completion_mask"].bool()
        whole = torch.zeros(*mask.shape, batch[REFERENCE_HIDDEN][0].shape[1])
        whole[mask] = torch.cat(batch[REFERENCE_HIDDEN])
        batch[REFERENCE_HIDDEN] = whole  # (B, C, H)
    torch.save(state, file)
    (file.parent / "manifest.json").unlink(missing_ok=True)
    resumed = build(**settings)
    resumed.train(resume_from_checkpoint=str(file.parent))
    assert same(parameters(undisturbed), parameters(resumed))


def test_a_senseless_budget_is_refused(build: Build) -> None:
    for budget, words in ((-1.0, "must be >= 0"), (float("nan"), "must be a finite number")):
        with pytest.raises(ValueError, match=f"reference_cache_gib={budget!r} {words}"):
            build(reference_cache_gib=budget)
