"""`--dry_run` of the analyses prints a plan: no model is loaded, nothing is written, no folder is taken."""

import json
import re
from pathlib import Path

import pytest
import torch
from helpers.pocket_models import BASE, refuse_loading
from rich.console import Console

from tokenshift.analysis.cross_sampling.pilot import Threshold
from tokenshift.analysis.cross_sampling.sweep import sweep_cells
from tokenshift.analysis.storage.disk import SAMPLED_TOKEN_BYTES, SCORED_TOKEN_BYTES
from tokenshift.analysis.storage.folder_lock import FolderLock
from tokenshift.recipes import analyze_evolution, analyze_shift, cross_sample, evaluate, shift_robustness
from tokenshift.recipes.command_line import plan_view
from tokenshift.recipes.command_line.parser import parse_into
from tokenshift.recipes.jobs.analysis import planned
from tokenshift.recipes.jobs.analysis.cross_sampling import CrossArguments
from tokenshift.recipes.jobs.analysis.evaluation import EvaluationArguments
from tokenshift.recipes.jobs.analysis.planned import PlannedAnalysis

PARAMETERS = 2 * 152064 * 3584 + 4 * (2 * 3584 * (3584 + 512) + 3584 + 2 * 512 + 3 * 3584 * 18944 + 2 * 3584) + 3584
"""Of `two_billion`: embeddings and head, and in each layer queries and outputs, keys and values, MLP, norms."""

GPU = ["--plan_gpu_gib", "80"]
LENGTHS = ["--size", "30", "--samples", "4", "--max_new_tokens", "200", "--plan_prompt_tokens", "50"]
COMMANDS = {
    "shift": (analyze_shift, ["--rl_model", str(BASE)]),
    "evolution": (analyze_evolution, ["--checkpoints", str(BASE)]),
    "robustness": (shift_robustness, ["--rl_model", str(BASE)]),
    "cross": (cross_sample, ["--rl_model", str(BASE)]),
    "evaluate": (evaluate, ["--model", str(BASE), "--against", "pocket"]),
}


@pytest.fixture(autouse=True)
def _nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_loading(monkeypatch)
    monkeypatch.setattr(plan_view, "console", Console(width=80))


@pytest.fixture
def two_billion(tmp_path: Path) -> str:
    """A folder with the config of Qwen2.5-Math-7B's first layers and nothing else."""
    folder = tmp_path / "two"
    folder.mkdir()
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 4,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "max_position_embeddings": 16384,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def plan_of(script: object, *words: str) -> PlannedAnalysis:
    job = script.prepare(["--dry_run", *words])  # type: ignore[attr-defined]
    assert isinstance(job, PlannedAnalysis)
    return job


def sizes(job: PlannedAnalysis, phase: str) -> dict[str, int]:
    """Bytes by name, in a phase."""
    by_name: dict[str, int] = {}
    for part in job.plan.parts:
        if size := part.bytes_in(phase):
            by_name[part.name] = by_name.get(part.name, 0) + size
    return by_name


@pytest.mark.parametrize("command", COMMANDS)
def test_every_analysis_plans_on_this_machine(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script, words = COMMANDS[command]
    out = tmp_path / "out"
    out.mkdir()
    lock = FolderLock(out, "analysis", "a test's")  # of a run that is under way
    before = sorted(tmp_path.rglob("*"))
    assert script.main(["--dry_run", *words, "--size", "20", "--max_new_tokens", "24", "--output_dir", str(out)]) == 0
    assert sorted(tmp_path.rglob("*")) == before, "something was written"
    lock.release()
    shown = capsys.readouterr().out
    table = [line for line in shown.splitlines() if line.startswith(("│", "╭", "╰"))]
    assert len(table) > 5
    assert max(map(len, table)) <= 80
    assert "GiB per process" in shown or torch.cuda.is_available()
    assert re.search(r"lengths: prompts of at most \d+ tokens \(the data's\), responses of at most 24", shown)
    assert "of this machine's free memory: fits" in shown or torch.cuda.is_available()
    assert "0.8M parameters, float32" in shown


def test_a_pair_of_two_billion(two_billion: str) -> None:
    words = ["--base_model", two_billion, "--rl_model", two_billion, *LENGTHS, *GPU, "--trajectories", "both"]
    job = plan_of(analyze_shift, *words)
    parameters = PARAMETERS
    reading, sampling = sizes(job, "reading"), sizes(job, "sampling")
    assert reading["weights of base"] == reading["weights of RL"] == 2 * parameters
    assert sampling["weights of RL"] == 2 * parameters
    assert "weights of base" not in sampling
    # slots: 50 + 32 spare, then 83 + 32, 116 + 32, 149 + 37, 187 + 46, 234 + 58
    assert sampling["KV cache"] == 32 * 292 * 2 * 4 * 4 * 128 * 2
    tokens = 2 * 30 * 4 * 200
    assert job.files["tables"] == tokens * SAMPLED_TOKEN_BYTES + 2 * tokens * SCORED_TOKEN_BYTES
    assert any(f"= 240 responses, at most {tokens:,} tokens" in fact for fact in job.facts)
    # two per multiplied parameter and attention; the head at responses alone; both models
    head = 152064 * 3584
    forward = 2 * (parameters - head) + 2 * 3584 * 4 * 250
    operations = 240 * 2 * (250 * (forward - 2 * head) + 200 * 2 * head)
    assert f"scoring: {operations:.2e} operations a process, " in "".join(job.facts)
    assert f"{operations / (989e12 * 0.4):.3g} s at 40% of 989 TFLOP/s" in "".join(job.facts)
    assert job.plan.fits
    assert "a GPU of 80 GiB" in job.device


def test_one_model_at_a_time(two_billion: str) -> None:
    words = ["--base_model", two_billion, "--rl_model", two_billion, *LENGTHS, "--plan_gpu_gib", "8"]
    both = plan_of(analyze_shift, *words, "--batch_size", "4")
    assert not both.plan.fits
    assert both.plan.tightest_phase == "reading"
    assert "one_model_at_a_time true" in both.changes[0]
    one = plan_of(analyze_shift, *words, "--batch_size", "4", "--one_model_at_a_time", "true")
    assert one.plan.fits
    assert set(one.plan.phases) == {"sampling", "base reads", "reading", "comparing"}
    assert "weights of base" not in sizes(one, "reading")
    tokens = 30 * 4 * 200
    assert one.files["hidden states"] == (2 * tokens + 152064) * 3584 * 2  # the page shows all responses again


def test_processes_share_the_work(two_billion: str) -> None:
    words = ["--base_model", two_billion, "--rl_model", two_billion, *LENGTHS]
    alone, eight = (plan_of(analyze_shift, *words, *GPU, *more) for more in ((), ("--plan_launch", "ddp")))
    assert eight.launch.processes == 2
    assert eight.plan.peak == alone.plan.peak, "each process holds both models"
    many = plan_of(analyze_shift, *words, *GPU, "--plan_launch", "ddp", "--plan_processes", "8")
    assert "8 GPUs, which share the work" in many.facts[0]
    on_cpu = plan_of(analyze_shift, *words, "--plan_launch", "cpu", "--plan_processes", "4")
    assert on_cpu.launch.on_cpu
    assert sizes(on_cpu, "reading")["kept of the KV cache"] == sizes(on_cpu, "sampling")["KV cache"]
    assert "kept of the KV cache" not in sizes(alone, "reading"), "a GPU's allocator takes the same memory anew"
    assert "for each of 4 processes" in on_cpu.device


@pytest.mark.parametrize("more", [[], ["--gammas", "0", "1", "--seeds", "0", "1"], ["--epsilons", "0.1", "0.2"]])
def test_policies_of_a_sweep_are_counted(more: list[str]) -> None:
    args = parse_into((CrossArguments,), ["--rl_model", str(BASE), *more])[0]
    found = [
        Threshold(*budget[:3], budget.budget, 0.01 * (1 + index), 0.1, 10, [], budget.match, budget.sharpening)
        for index, budget in enumerate(args.wanted)
    ]
    cells = sweep_cells(args.directions, args.swept, args.epsilons or (), found, args.gammas, args.seeds)
    assert args.most_policies == len(cells)
    job = plan_of(cross_sample, "--rl_model", str(BASE), *LENGTHS, *more)
    assert job.files["tables"] == len(cells) * 30 * 4 * 200 * SAMPLED_TOKEN_BYTES
    assert any(f"policies: at most {len(cells)} " in fact for fact in job.facts)


def test_engines_of_cross_sampling(two_billion: str) -> None:
    words = ["--base_model", two_billion, "--rl_model", two_billion, *LENGTHS, *GPU]
    tree, draft, lockstep = (plan_of(cross_sample, *words, "--engine", name) for name in ("tree", "draft", "lockstep"))
    each = [sizes(job, "decoding") for job in (tree, draft, lockstep)]
    assert each[0]["KV caches"] == each[1]["KV caches"] > each[2]["KV caches"]
    assert each[1]["logits of a step"] == 32 * each[0]["logits of a step"]
    assert "shared prefixes decoded once" in "".join(tree.facts)
    assert "pilot: thresholds of 36 budgets on 30 problems" in "".join(tree.facts)


def test_vllm_shares_its_devices(two_billion: str) -> None:
    words = ["--base_model", two_billion, "--rl_model", two_billion, *LENGTHS, "--engine", "vllm"]
    small = plan_of(analyze_shift, *words, "--plan_gpu_gib", "9")
    assert not small.plan.fits
    assert small.changes[0].endswith("vllm_tensor_parallel_size 2")
    wide = plan_of(analyze_shift, *words, "--plan_gpu_gib", "9", "--vllm_tensor_parallel_size", "2")
    assert wide.plan.fits
    assert wide.plan.peak == wide.plan.capacity == int(0.9 * 9 * 2**30)
    assert re.search(r"vLLM over 2 devices: caches of [\d,]+ tokens, which are [\d,]+ texts", "".join(wide.facts))


def test_models_that_are_spread(two_billion: str) -> None:
    words = ["--base_model", two_billion, "--rl_model", two_billion, *LENGTHS, "--plan_gpu_gib", "4"]
    job = plan_of(analyze_shift, *words, "--device_map", "auto", "--plan_gpus", "2")
    weights = 2 * PARAMETERS
    on_gpu = {part.name: part.size for part in job.plan.parts if not part.on_host}
    on_host = {part.name: part.size for part in job.plan.parts if part.on_host}
    assert on_gpu["weights of base"] == weights // 2
    assert on_gpu["weights of RL"] == 3 * 2**30 - weights // 2, "what the base leaves"
    assert on_host["weights of RL"] == weights - 2 * on_gpu["weights of RL"]
    parts = '{"": "cpu", "model.layers.0": "disk"}'
    mapped = plan_of(analyze_shift, "--rl_model", str(BASE), *LENGTHS, "--device_map", parts)
    assert "on the disk" in next(part.note for part in mapped.plan.parts if part.name == "weights of RL")


def test_an_evaluation_holds_one_model(two_billion: str) -> None:
    words = ["--model", "pocket", "--against", two_billion, "--datasets", "pocket", "sums", *LENGTHS]
    job = plan_of(evaluate, *words, *GPU, "--dtype", "bfloat16")
    assert sizes(job, "sampling")["weights of the model"] == 2 * PARAMETERS
    assert job.files["tables"] == 2 * 2 * 30 * 4 * 200 * SAMPLED_TOKEN_BYTES


def test_responses_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "responses.jsonl"
    rows = [{"prompt_ids": [1, 2, 3], "completion_ids": [4] * length} for length in (10, 30)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = plan_of(analyze_shift, "--rl_model", str(BASE), "--trajectories", str(file))
    assert "sampling" not in job.plan.phases
    assert job.files["tables"] == 2 * 40 * SCORED_TOKEN_BYTES
    assert "to score: at most 40 tokens, by both models (2 responses of a file)" in job.facts
    assert "responses of at most 30, 20 on average" in job.facts[1]


def test_a_disk_that_is_too_small(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(planned, "free_bytes", lambda folder: 1000)
    planned.show_plan(plan_of(analyze_shift, "--rl_model", str(BASE), *LENGTHS))
    shown = capsys.readouterr().out
    assert "has 1 kB free: too little" in shown
    assert "change: fewer or shorter responses" in shown


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        (analyze_shift, ["--plan_gpu_gib", "40"], "no plan is asked for; give --dry_run, or leave it out."),
        (evaluate, ["--plan_gpus", "2", "--model", "pocket"], "no plan is asked for; give --dry_run"),
        (analyze_shift, ["--dry_run", "--plan_gpu_gib", "-1"], "plan_gpu_gib=-1.0 must be positive."),
        (analyze_shift, ["--dry_run", "--plan_utilization", "2"], "plan_utilization=2.0 must lie in (0, 1]."),
        (analyze_shift, ["--dry_run", "--plan_gpus", "2"], "plan_gpus=2 has no effect: it is of device_map"),
        (
            analyze_shift,
            ["--dry_run", "--rl_model", str(BASE), "--plan_processes", "2"],
            "plan_processes needs plan_launch",
        ),
        (cross_sample, ["--dry_run", "--plan_tflops", "2"], "--plan_tflops is no argument"),
        (
            analyze_shift,
            ["--dry_run", "--rl_model", str(BASE), "--plan_launch", "cpu", "--plan_gpu_gib", "40"],
            "plan_gpu_gib=40 has no effect: plan_launch='cpu' computes on CPU",
        ),
        (
            analyze_shift,
            ["--dry_run", "--rl_model", str(BASE), "--device_map", "auto", "--plan_launch", "ddp"],
            "device_map='auto' spreads each model over the devices that one process sees, but 2 processes run",
        ),
        (cross_sample, ["--dry_run", "--rl_model", "no/such@x"], "rl_model='no/such@x' cannot be loaded"),
        (
            analyze_shift,
            ["--dry_run", "--rl_model", str(BASE), "--max_new_tokens", "9999"],
            "reads 256 tokens; the longest prompt has",
        ),
    ],
)
def test_mistakes(script: object, words: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        script.prepare(words)  # type: ignore[attr-defined]
    assert "\n" not in str(raised.value)


def test_a_model_without_a_tokenizer_is_planned_by_a_given_length(two_billion: str) -> None:
    words = ["--base_model", two_billion, "--rl_model", two_billion]
    with pytest.raises(ValueError, match="has no tokenizer, which would read the prompts; give the length"):
        plan_of(analyze_shift, *words)


def test_quantized_weights_are_not_planned(tmp_path: Path) -> None:
    config = json.loads((BASE / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "awq"}}))
    with pytest.raises(ValueError, match="has quantized weights, which cannot be planned"):
        plan_of(cross_sample, "--rl_model", str(tmp_path))


def test_options_of_a_plan_are_no_settings(tmp_path: Path) -> None:
    from tokenshift.recipes.command_line.output_folder import UNRECORDED_ARGUMENTS
    from tokenshift.recipes.command_line.run_record import settings_to_record

    args = parse_into((EvaluationArguments,), ["--model", "pocket"])[0]
    names = {name for name in vars(args) if name.startswith("plan_") or name == "dry_run"}
    assert len(names) == 8
    assert names <= set(UNRECORDED_ARGUMENTS)
    assert not names & settings_to_record((args,)).keys()
