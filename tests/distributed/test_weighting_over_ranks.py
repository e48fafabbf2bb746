"""Weights, controls and metrics over two ranks that hold different numbers of tokens, against one process's numpy."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent.parent

WORKER = """
import json, sys
import torch
from accelerate import Accelerator
from tokenshift.trainer.weighting.completion_weights import CompletionWeights
from tokenshift.trainer.weighting.controls import gather_ragged, global_mean, normalize_weights, shuffle_weights
from tokenshift.trainer.weighting.metrics import TokenWindow

accelerator = Accelerator(cpu=True)
rank = accelerator.process_index
sizes = {"ragged": (3, 40), "one empty": (0, 5), "all empty": (0, 0)}
result = {"processes": accelerator.num_processes}
for name, counts in sizes.items():
    values = torch.rand(counts[rank], generator=torch.Generator().manual_seed(rank))
    window = TokenWindow(divergence=[values[:2], values[2:]], weights=[1 + values])
    table = CompletionWeights(rows=4)
    table.start_generation(2, accelerator, training=True)
    weights = torch.full((2, 3), 1.0 + rank) + torch.tensor([[0.0], [0.5]])
    table.add(torch.tensor([1, 0]), weights, torch.tensor([[True, True, False], [False, rank == 0, False]]))
    mine = {
        "values": values.tolist(),
        "shuffled": shuffle_weights(accelerator, values, seed=0, step=1).tolist(),
        "mean": float(global_mean(accelerator, values)),
        "normalized": normalize_weights(accelerator, values).tolist(),
        "metrics": window.metrics(accelerator),
        "columns": table.columns(),
    }
    from accelerate.utils import gather_object
    result[name] = gather_object([mine])
if accelerator.is_main_process:
    json.dump(result, open(sys.argv[1], "w"))
accelerator.wait_for_everyone()
torch.distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "worker.py").write_text(WORKER)
    command = ["-m", "accelerate.commands.launch", "--config_file", str(ROOT / "accelerate_configs" / "ddp.yaml")]
    run = subprocess.run(
        [sys.executable, *command, "--main_process_port", "0", str(folder / "worker.py"), str(folder / "out.json")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr
    return json.loads((folder / "out.json").read_text())


@pytest.mark.distributed
@pytest.mark.parametrize("name", ["ragged", "one empty", "all empty"])
def test_two_ranks_are_one_batch(ranks: dict, name: str) -> None:
    assert ranks["processes"] == 2
    first, second = ranks[name]
    every = np.array(first["values"] + second["values"])
    shuffled = first["shuffled"] + second["shuffled"]
    assert len(first["shuffled"]) == len(first["values"])
    assert sorted(shuffled) == sorted(every.tolist())
    assert first["metrics"] == second["metrics"]
    if not len(every):
        assert first["metrics"] == {}
        assert first["mean"] == 1.0
        return
    assert shuffled != every.tolist()
    if name == "ragged":
        assert not set(first["shuffled"]) <= set(first["values"]), "weights never crossed the ranks"
    assert first["mean"] == second["mean"] == pytest.approx(every.mean(), rel=1e-6)
    assert first["normalized"] + second["normalized"] == pytest.approx(list(every / every.mean()), rel=1e-6)
    for quantile, key in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"), (1.0, "max")):
        assert first["metrics"][f"divergence/{key}"] == pytest.approx(np.quantile(every, quantile), rel=1e-6)
    assert first["metrics"]["divergence/mean"] == pytest.approx(every.mean(), rel=1e-6)
    assert first["metrics"]["advantage_weight/std"] == pytest.approx(every.std(), rel=1e-5)


@pytest.mark.distributed
def test_completion_columns_are_in_rank_order(ranks: dict) -> None:
    for mine in ranks["ragged"]:
        # rank 0: completion 1 has weights 1, 1, completion 0 has 1.5; rank 1: completion 1 has 2, 2, completion 0 none
        assert mine["columns"]["weight_mean"] == [1.5, 1.0, None, 2.0]
        assert mine["columns"]["weight_max"] == [1.5, 1.0, None, 2.0]
