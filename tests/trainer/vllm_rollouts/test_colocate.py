"""Training with a colocated vLLM engine on a CPU: weights reach it, its mismatch is logged, a probe leaves no trace.

Each training runs in a process of its own, since an engine keeps its process's communication.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

ROOT = Path(__file__).parents[3]
POCKET = ROOT / "recipes" / "pocket" / "base"

WORKER = """
import json, sys
from helpers.cpu_vllm import keep_weights
keep_weights()
import torch
from helpers.tiny_training import SETTINGS
from tokenshift.recipes.pocket.problems import pocket_dataset
from tokenshift.trainer import DivergenceGRPOConfig, DivergenceGRPOTrainer

model, out, syncs, settings = sys.argv[1], sys.argv[2], sys.argv[3] == "yes", json.loads(sys.argv[4])

def reward(completions, completion_ids, **columns):
    return [sum(ids) % 7 / 7 for ids in completion_ids]  # differs within a group of a trained model's completions

common = {"learning_rate": 1e-3, "temperature": 1.5, "use_vllm": True, "vllm_gpu_memory_utilization": 0.2}
settings = {**SETTINGS, "output_dir": out, **common, **settings}
trainer = DivergenceGRPOTrainer(
    model=model, reward_funcs=reward, args=DivergenceGRPOConfig(**settings),
    train_dataset=pocket_dataset("train", 24),
)
if not syncs:
    trainer.vllm_generation.sync_weights = lambda: None
trainer.train()
weights = torch.cat([value.detach().flatten() for value in trainer.model.parameters()]).double()
result = {"log": trainer.state.log_history, "weights": weights.sum().item(), "squares": (weights**2).sum().item()}
json.dump(result, open(f"{out}/result.json", "w"))
"""


def trained(out: Path, model: Path = POCKET, syncs: bool = True, **settings: Any) -> dict[str, Any]:
    out.mkdir()
    (out / "worker.py").write_text(WORKER)
    given = {"vllm_max_model_length": 128, "model_init_kwargs": {"dtype": "float32"}, **settings}
    places = [str(ROOT / "tests"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    run = subprocess.run(
        [sys.executable, str(out / "worker.py"), str(model), str(out), "yes" if syncs else "no", json.dumps(given)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, places))},
        timeout=550,
    )
    assert (out / "result.json").is_file(), run.stdout[-3000:] + run.stderr[-3000:]
    result: dict[str, Any] = json.loads((out / "result.json").read_text())
    return result


def of(result: dict[str, Any], name: str) -> list[float]:
    return [log[name] for log in result["log"] if name in log]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return trained(tmp_path_factory.mktemp("plain") / "out", save_steps=2, save_strategy="steps")


def test_the_engine_samples_from_the_policy_of_the_last_update(plain: dict[str, Any]) -> None:
    mismatch = of(plain, "rollout/max")
    assert len(mismatch) == 2  # generations
    assert max(mismatch) < 1e-6  # k3 of a difference of rounding
    assert min(of(plain, "rollout/mean")) >= 0
    assert "rollout/non_finite_share" not in plain["log"][0]
    assert max(of(plain, "divergence/max")) > 1e-4  # the trainer's own, between its updates


def test_an_engine_with_old_weights_is_seen(plain: dict[str, Any], tmp_path: Path) -> None:
    stale = trained(tmp_path / "out", syncs=False)
    first, second = of(stale, "rollout/mean")
    assert first < 1e-6  # it was built with the policy's weights
    assert second > 100 * of(plain, "rollout/mean")[1]


def test_the_probe_and_the_held_out_score_leave_no_trace(plain: dict[str, Any], tmp_path: Path) -> None:
    probed = trained(tmp_path / "out", probe_steps=1, probe_size=2)
    assert [probed["weights"], probed["squares"]] == [plain["weights"], plain["squares"]]
    assert of(probed, "rollout/mean") == of(plain, "rollout/mean")
    assert of(probed, "shift/mean")


def test_dynamic_sampling_goes_on(tmp_path: Path) -> None:
    result = trained(tmp_path / "out", dynamic_sampling=True, dynamic_sampling_max_rounds=3, correct_threshold=0.2)
    assert of(result, "dynamic_sampling/rounds")
    assert max(of(result, "rollout/max")) < 1e-6


def test_smollm2(tmp_path: Path) -> None:
    from tokenshift.recipes.inputs.models import resolve_model

    settings = {"max_steps": 2, "learning_rate": 1e-5, "max_completion_length": 8}
    result = trained(tmp_path / "out", Path(resolve_model("smollm2")), **settings)
    (mismatch,) = of(result, "rollout/max")
    assert mismatch < 1e-5
