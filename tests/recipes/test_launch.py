"""The recipe under several processes, and runs that are not what was asked for."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
import torch
from accelerate import PartialState
from helpers.launched_recipes import DDP, finish, start
from transformers import AutoModelForCausalLM

from tokenshift.analysis import js_divergence
from tokenshift.analysis.sampling.trajectories import read_trajectories
from tokenshift.trainer.resume.launch_check import AskedLaunch, check_launch, parse_launch_command

ROOT = Path(__file__).parent.parent.parent
RECIPE = ROOT / "recipes" / "grpo_divweighted.py"
FSDP_ON_CPU = ROOT / "tests" / "helpers" / "fsdp_on_cpu.py"
QUICK = ["--max_steps", "4", "--eval_size", "16", "--per_device_train_batch_size", "8", "--save_steps", "2"]
QUICK += ["--probe_size", "4", "--report_to", "none"]


def launch(
    config: str, out: Path, *arguments: str, script: Path = RECIPE, **environment: str
) -> subprocess.CompletedProcess[str]:
    launcher = ["-m", "accelerate.commands.launch", "--main_process_port", "0"]
    launcher += ["--config_file", str(ROOT / "accelerate_configs" / config)]
    return subprocess.run(
        [sys.executable, *launcher, str(script), "--output_dir", str(out), *QUICK, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        cwd=ROOT,
    )


def launch_on_cpu(config: str, out: Path, *arguments: str) -> str:
    """Launch the training recipe on CPU, and return what it prints."""
    if "zero" in config and shutil.which("g++") is None:
        pytest.skip("DeepSpeed builds a communication op on CPU, which needs g++")
    run = launch(config, out, *arguments, script=FSDP_ON_CPU if config == "fsdp2.yaml" else RECIPE)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def check_launched(out: Path, printed: str, processes: int) -> list[dict[str, float]]:
    """Assert that the run trained on so many processes and left what it promises; the log."""
    summary = json.loads((out / "summary.json").read_text())
    assert summary["updates"] == 4
    assert summary["after"]["n"] == 16
    assert (out / "model" / "model.safetensors").is_file()
    assert not (out / ".incomplete").exists()
    assert f"{processes} (" in printed
    logs: list[dict[str, float]] = json.loads((out / "checkpoint-4" / "trainer_state.json").read_text())["log_history"]
    assert any(log.get("advantage_weight/max", 0) > 1 for log in logs)
    return logs


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize(("config", "processes"), [("cpu.yaml", 1), ("single_gpu.yaml", 1), ("zero2.yaml", 2)])
def test_each_way_to_launch_on_cpu(config: str, processes: int, tmp_path: Path) -> None:
    check_launched(tmp_path, launch_on_cpu(config, tmp_path), processes)


@pytest.mark.slow
@pytest.mark.distributed
def test_distributions_against_the_base_over_ranks(tmp_path: Path) -> None:
    """By plain transformers; `tests/distributed` compares the other engines with one process."""
    probe = ["--probe_steps", "2", "--probe_size", "5"]  # not a multiple of the ranks
    printed = launch_on_cpu("zero3.yaml", tmp_path, "--divergence", "js", "--divergence_reference", "base", *probe)
    logs = check_launched(tmp_path, printed, 2)
    (log,) = (log for log in logs if "divergence/mean" in log)
    assert 0 < log["divergence/max"] < 0.7
    assert any(key.startswith("divergence_position/") for key in log)

    shift = tmp_path / "shift"
    assert sorted(path.name for path in shift.glob("step_*")) == [f"step_{step:06d}.parquet" for step in (0, 2, 4)]
    table = pq.read_table(shift / "step_000004.parquet")
    base, policy = (
        AutoModelForCausalLM.from_pretrained(path)
        for path in (ROOT / "recipes" / "pocket" / "base", tmp_path / "model")
    )
    fixed = read_trajectories(shift / "fixed_trajectories.parquet")
    assert [trajectory.problem_id for trajectory in fixed] == list(range(5))
    expected = []
    for trajectory in fixed:
        ids = torch.tensor([trajectory.prompt_ids + trajectory.completion_ids])
        with torch.no_grad():
            p, q = (model(input_ids=ids).logits[0, len(trajectory.prompt_ids) - 1 : -1] for model in (base, policy))
        expected += js_divergence(p.double(), q.double()).tolist()
    rows = table.to_pylist()
    found = [row["js"] for row in rows if row["trajectory"] == "fixed"]
    assert found == pytest.approx(expected, abs=1e-5)
    first_tokens = [row["problem_id"] for row in rows if row["trajectory"] == "own" and row["position"] == 0]
    assert first_tokens == list(range(5))


@pytest.mark.slow
@pytest.mark.distributed
def test_a_launcher_ends_with_a_process_that_is_killed(tmp_path: Path) -> None:
    """The other process says what is lost, nothing is left running, and the run can be resumed."""
    words = [*DDP, str(RECIPE), "--output_dir", str(tmp_path), *QUICK, "--max_steps", "2000"]
    run = start(words)
    deadline = time.monotonic() + 200
    while not (tmp_path / "checkpoint-2" / "manifest.json").is_file():
        assert run.poll() is None, run.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    launcher = psutil.Process(run.pid)
    ranks = {int(child.environ()["RANK"]): child for child in launcher.children() if "RANK" in child.environ()}
    assert set(ranks) == {0, 1}
    everything = launcher.children(recursive=True)
    ranks[1].kill()
    output, _ = run.communicate(timeout=100)
    assert run.returncode == 1, output
    lost = f"Of the 2 processes of this run, rank 1 (process {ranks[1].pid}) on the host"
    assert output.count(lost) == 1, output
    assert "is the last checkpoint in" in output
    _, alive = psutil.wait_procs(everything, timeout=20)
    assert not alive
    newest = max(int(folder.name.removeprefix("checkpoint-")) for folder in tmp_path.glob("checkpoint-*"))
    on = ["--resume_from_checkpoint", "true", "--max_steps", str(newest + 1)]
    finish(start([*DDP, str(RECIPE), "--output_dir", str(tmp_path), *QUICK, *on]))
    assert json.loads((tmp_path / "summary.json").read_text())["updates"] == newest + 1


@pytest.mark.slow
@pytest.mark.distributed
def test_fsdp2_on_cpu_is_refused_not_silently_ddp(tmp_path: Path) -> None:
    run = launch("fsdp2.yaml", tmp_path)
    assert run.returncode != 0
    assert "asks for FSDP, but this run uses DDP" in run.stderr
    assert not (tmp_path / "summary.json").exists()


@pytest.mark.slow
@pytest.mark.distributed
def test_zero_that_would_silently_be_ddp_is_refused(tmp_path: Path) -> None:
    run = launch("zero2.yaml", tmp_path, ACCELERATE_USE_CPU="true")
    assert run.returncode != 0
    assert "asks for DeepSpeed, but this run uses DDP" in run.stderr


@pytest.mark.slow
@pytest.mark.distributed
def test_several_processes_that_are_silently_one_are_refused(tmp_path: Path) -> None:
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "accelerate.commands.launch",
            "--cpu",
            "--num_processes",
            "2",
            str(RECIPE),
            "--output_dir",
            str(tmp_path),
            *QUICK,
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert run.returncode != 0
    assert "asks for 2 processes, but this run has 1" in run.stderr


def test_launch_commands_are_read(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("distributed_type: FSDP\nnum_processes: 8\n")
    named = ["python", "/bin/accelerate", "launch", "--config_file", str(config)]
    assert parse_launch_command([*named, "x.py"]) == AskedLaunch(8, "FSDP", str(config))
    assert parse_launch_command([*named, "--num_processes=4", "x.py"]) == AskedLaunch(4, "FSDP", str(config))
    asked = parse_launch_command(["accelerate", "launch", "--use_deepspeed", "--num_processes", "2", "x.py"])
    assert asked is not None
    assert (asked.processes, asked.engine) == (2, "DeepSpeed")
    by_module = ["python", "-m", "accelerate.commands.launch", "--config_file", str(config), "x.py"]
    assert parse_launch_command(by_module) == AskedLaunch(8, "FSDP", str(config))
    assert parse_launch_command(["python", "launch.py"]) is None
    assert parse_launch_command([]) is None


def test_world_size_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    check_launch(PartialState(), AskedLaunch(1, None, "x"))
    with pytest.raises(ValueError, match="x asks for 2 processes, but this run has 1"):
        check_launch(PartialState(), AskedLaunch(2, None, "x"))
    with pytest.raises(ValueError, match="x asks for FSDP, but this run uses one process"):
        check_launch(PartialState(), AskedLaunch(1, "FSDP", "x"))
