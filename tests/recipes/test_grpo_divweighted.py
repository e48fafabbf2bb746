"""The training recipe from start to end, killed, interrupted and resumed."""

import json
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
import torch
import yaml
from helpers import launched_recipes
from helpers.launched_recipes import ROOT, finish, refusal
from helpers.offline_wandb import history
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tokenshift.analysis.storage.folder_lock import HOLDER_FILE

# 4 updates a generation: checkpoints at 3, 6, 9 fall inside one
QUICK = ["--max_steps", "12", "--eval_size", "16", "--per_device_train_batch_size", "8", "--save_steps", "3"]
QUICK += ["--probe_size", "4"]


def start(out: Path, *arguments: str) -> subprocess.Popen[str]:
    script = str(ROOT / "recipes" / "grpo_divweighted.py")
    return launched_recipes.start([script, "--output_dir", str(out), *QUICK, *arguments])


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 200
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never appeared"
        time.sleep(0.02)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / "model.safetensors")


def logged(out: Path) -> list[int]:
    """Updates at which a loss was logged."""
    return [log["step"] for log in json.loads((out / "log_history.json").read_text()) if "loss" in log]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("undisturbed")
    return out, finish(start(out))


@pytest.mark.slow
def test_leaves_what_it_promises(undisturbed: tuple[Path, str]) -> None:
    out, output = undisturbed
    summary = json.loads((out / "summary.json").read_text())
    assert summary["updates"] == 12
    assert summary["variant"] == "high_k3"
    for score in (summary["before"], summary["after"]):
        assert score["n"] == 16
        assert 0 <= score["low"] <= score["mean"] <= score["high"] <= 1
    assert (out / "training_curves.png").stat().st_size > 10_000
    assert (out / "training_curves.svg").is_file()
    assert logged(out)[-1] == 12
    assert "updates per generation" in output
    assert "wandb sync" in output
    assert len(list(out.glob("wandb/offline-run-*/*.wandb"))) == 1
    assert "arXiv 2603.22446" in (out / "checkpoint-12" / ".." / "README.md").resolve().read_text()
    model = AutoModelForCausalLM.from_pretrained(out / "model")
    tokenizer = AutoTokenizer.from_pretrained(out / "model")
    assert model(**tokenizer("Q: 1+1=?", return_tensors="pt")).logits.isfinite().all()


@pytest.mark.slow
def test_killed_and_resumed_ends_as_undisturbed(undisturbed: tuple[Path, str], tmp_path: Path) -> None:
    """In training; `tests/faults/test_kills.py` kills while files are written."""
    run = start(tmp_path)
    wait_for(tmp_path / "checkpoint-3")
    run.send_signal(signal.SIGKILL)
    run.wait()
    for checkpoint in tmp_path.glob("checkpoint-*"):  # whatever has its name is whole
        json.loads((checkpoint / "trainer_state.json").read_text())
        load_file(checkpoint / "model.safetensors")
        torch.load(checkpoint / "optimizer.pt", weights_only=True)
    finish(start(tmp_path, "--resume_from_checkpoint", "true"))
    summary = json.loads((tmp_path / "summary.json").read_text())
    expected = json.loads((undisturbed[0] / "summary.json").read_text())
    assert summary["updates"] == 12
    assert summary["before"] == expected["before"]
    assert summary["after"] == expected["after"]
    assert logged(tmp_path) == logged(undisturbed[0])
    ours, theirs = weights(tmp_path), weights(undisturbed[0])
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    launches = yaml.safe_load((tmp_path / "config.yaml").read_text())["record"]["launches"]
    assert [launch.get("goes_on") for launch in launches] == [None, True]
    assert launches[1]["resumed_from"].startswith("checkpoint-")
    ids = {path.name.rsplit("-", 1)[1] for path in tmp_path.glob("wandb/offline-run-*")}
    assert len(ids) == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_ends_with_a_checkpoint_and_goes_on(
    undisturbed: tuple[Path, str], tmp_path: Path, number: signal.Signals
) -> None:
    run = start(tmp_path, "--save_steps", "1000")
    assert run.stdout is not None
    for line in run.stdout:
        if line.startswith("update 4/12"):
            break
    run.send_signal(number)
    output = finish(run)
    assert f"{number.name}: stopping after this update, with a checkpoint" in output
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["stopped_early"]
    assert 4 < summary["updates"] < 12
    assert (tmp_path / f"checkpoint-{summary['updates']}" / "optimizer.pt").is_file()
    finish(start(tmp_path, "--resume_from_checkpoint", "true"))
    ours, theirs = weights(tmp_path), weights(undisturbed[0])
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.slow
def test_resumed_at_the_end_only_scores_again(undisturbed: tuple[Path, str]) -> None:
    expected = json.loads((undisturbed[0] / "summary.json").read_text())
    finish(start(undisturbed[0], "--resume_from_checkpoint", "true"))
    summary = json.loads((undisturbed[0] / "summary.json").read_text())
    assert (summary["updates"], summary["before"], summary["after"]) == (12, expected["before"], expected["after"])


@pytest.mark.slow
def test_overwrite_deletes_nothing_when_the_new_run_cannot_start(undisturbed: tuple[Path, str]) -> None:
    before = sorted(undisturbed[0].rglob("*"))
    run = start(undisturbed[0], "--overwrite", "true", "--reward_funcs", "no_such.reward")
    run.communicate(timeout=100)
    assert run.returncode == 2
    assert sorted(undisturbed[0].rglob("*")) == before


@pytest.mark.slow
def test_interrupted_before_training_ends_in_one_line(tmp_path: Path) -> None:
    run = start(tmp_path)
    assert run.stdout is not None
    for line in run.stdout:
        if "updates per generation" in line:  # of the plan: the model is loaded next
            break
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=100)
    assert run.returncode == 130
    assert "Traceback" not in output
    assert "--resume_from_checkpoint true goes on from the last checkpoint" in output


@pytest.mark.slow
def test_second_run_does_not_mix_with_the_first(undisturbed: tuple[Path, str]) -> None:
    run = start(undisturbed[0])
    output, _ = run.communicate(timeout=100)
    assert run.returncode == 2
    assert "holds checkpoint-12 of an earlier run" in output


@pytest.mark.slow
def test_a_second_training_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    first = start(tmp_path)
    wait_for(tmp_path / "checkpoint-3")
    first.send_signal(signal.SIGSTOP)  # it holds its folder, and gets no further
    expected = (
        f"grpo_divweighted.py: output_dir='{tmp_path}' is in use by another training, process {first.pid} on the host "
        f"{socket.gethostname()}; wait until it ends, or choose another --output_dir."
    )
    for wanted in (["--resume_from_checkpoint", "true"], ["--overwrite", "true"], []):
        assert refusal(start(tmp_path, *wanted)) == expected
    assert (tmp_path / "checkpoint-3").is_dir()
    first.send_signal(signal.SIGKILL)
    first.wait()
    finish(start(tmp_path, "--resume_from_checkpoint", "true", "--max_steps", "4"))
    assert not (tmp_path / HOLDER_FILE).exists()


@pytest.mark.slow
def test_every_metric_is_in_wandb_once(tmp_path: Path) -> None:
    settings = ["--divergence", "js", "--divergence_reference", "base", "--probe_steps", "3", "--probe_size", "6"]
    settings += ["--max_steps", "6", "--logging_steps", "1"]
    finish(start(tmp_path, *settings))
    rows = history(next(tmp_path.glob("wandb/offline-run-*/*.wandb")))
    names = {name for row in rows for name in row}
    shares = {"mean", "p50", "p90", "p95", "p99", "max", "frac_near_zero", "frac_high"}
    training = {f"divergence/{name}" for name in shares}
    training |= {f"advantage_weight/{name}" for name in ("mean", "std", "min", "max", "frac_active")}
    training |= {"divergence/position"}
    training |= {f"divergence_entropy/{model}_near_zero" for model in ("policy", "reference")}
    assert training <= names
    assert "train/reward" in names
    probe = shares | {"position"} | {f"overlap_{k}" for k in (1, 2, 3, 5, 10)}
    probe |= {"rl_top1_rank_1", "rl_top1_rank_3", "rl_top1_improbable", "accuracy", "length", "tokens", "responses"}
    probe |= {"entropy_policy_near_zero", "entropy_reference_near_zero", "top_p/frac_near_zero", "log10_js"}
    probe |= {f"top_p/{name}" for name in (*shares, "frac_exact_zero", "log10_js", "most_moved", "position")}
    views = {"most_moved", "js_histogram", "position_profile", "js_entropy_map", "percentiles"}
    assert {f"shift/{name}" for name in probe | views} <= names
    assert {f"shift/own/{name}" for name in probe | views} <= names
    probes = [row for row in rows if "shift/mean" in row]
    assert [row["shift/step"] for row in probes] == [0, 3, 6]
    assert {row["shift/own/most_moved"]["_type"] for row in probes} == {"table-file"}
    assert {row["shift/js_histogram"]["_type"] for row in probes} == {"image-file"}
    assert {row["shift/log10_js"]["_type"] for row in probes} == {"histogram"}
    on_disk = {row["step"]: row for row in json.loads((tmp_path / "shift" / "metrics.json").read_text())}
    assert probes[1]["shift/own/p99"] == pytest.approx(on_disk[3]["shift/own/p99"])

    shutil.rmtree(tmp_path / "checkpoint-6")
    (tmp_path / "shift" / "step_000003.parquet").unlink()  # killed between the checkpoint and its probe
    finish(start(tmp_path, *settings, "--resume_from_checkpoint", "true"))
    again = [row for file in tmp_path.glob("wandb/offline-run-*/*.wandb") for row in history(file)]
    assert sorted(row["shift/step"] for row in again if "shift/mean" in row) == [0, 3, 6]
    assert sorted(path.name for path in (tmp_path / "shift").glob("step_*")) == [
        f"step_{step:06d}.parquet" for step in (0, 3, 6)
    ]


@pytest.mark.slow
def test_its_record_alone_makes_it_again(undisturbed: tuple[Path, str], tmp_path: Path) -> None:
    script = str(ROOT / "recipes" / "grpo_divweighted.py")
    record = undisturbed[0] / "config.yaml"
    finish(launched_recipes.start([script, "--config", str(record), "--output_dir", str(tmp_path)]))
    ours, theirs = weights(tmp_path), weights(undisturbed[0])
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    names = ("before", "after", "updates", "variant")
    first, again = (json.loads((out / "summary.json").read_text()) for out in (undisturbed[0], tmp_path))
    assert [again[name] for name in names] == [first[name] for name in names]
