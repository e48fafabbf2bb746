"""A loss that is not finite on one of two ranks: both stop before the update, and say which one it was."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.tiny_training import SETTINGS

ROOT = Path(__file__).parent.parent.parent

WORKER = """
import json, sys
import torch
from tokenshift.recipes.pocket.problems import pocket_dataset
from tokenshift.trainer import DivergenceGRPOConfig, DivergenceGRPOTrainer
from tokenshift.trainer.guard.errors import NonFiniteUpdateError

out, model, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])

class Broken(DivergenceGRPOTrainer):
    def _compute_loss(self, model, inputs):
        loss = super()._compute_loss(model, inputs)
        strikes = self.state.global_step == 1 and self.accelerator.process_index == 1
        return loss + torch.inf if strikes else loss  # the gradient stays finite

def reward(completions, **columns):
    return [float(len(text) % 5) for text in completions]

args = DivergenceGRPOConfig(output_dir=out, **settings)
trainer = Broken(model=model, reward_funcs=reward, args=args, train_dataset=pocket_dataset("train", 24))
try:
    trainer.train()
    said = "trained on"
except NonFiniteUpdateError as error:
    said = str(error)
finite = all(bool(value.isfinite().all()) for value in trainer.model.parameters())
rank = trainer.accelerator.process_index
json.dump({"said": said, "finite": finite, "step": trainer.state.global_step}, open(f"{out}/rank_{rank}.json", "w"))
torch.distributed.destroy_process_group()
"""


@pytest.mark.distributed
def test_all_ranks_stop_where_one_is_not_finite(tiny_model: str, tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(WORKER)
    settings = {**SETTINGS, "max_steps": 3, "save_strategy": "steps", "save_steps": 1, "save_only_model": True}
    launch = ["-m", "accelerate.commands.launch", "--config_file", str(ROOT / "accelerate_configs" / "ddp.yaml")]
    words = ["--main_process_port", "0", str(tmp_path / "worker.py")]
    run = subprocess.run(
        [sys.executable, *launch, *words, str(tmp_path), tiny_model, json.dumps(settings)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=550,
    )
    assert run.returncode == 0, run.stderr
    results = [json.loads((tmp_path / f"rank_{rank}.json").read_text()) for rank in range(2)]
    for result in results:
        assert result["said"].startswith("At update 2 the loss is inf at 1 of 1 values on rank 1 of 2")
        assert f"The last good checkpoint is {tmp_path / 'checkpoint-1'}" in result["said"]
        assert result["finite"]
        assert result["step"] == 1
    assert not (tmp_path / "checkpoint-2").exists()
    for rank in range(2):
        saved = torch.load(tmp_path / "post_mortem" / f"update_2_rank_{rank}.pt", weights_only=True)
        assert (saved["rank"], saved["first_rank"]) == (rank, 1)
