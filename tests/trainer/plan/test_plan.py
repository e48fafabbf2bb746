"""The plan of a training, against numbers counted by hand and against what a real forward pass keeps."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.architectures import tiny_model
from peft import LoraConfig
from transformers import LlamaConfig, LlamaForCausalLM

from tokenshift.analysis.plan.parts import Part, peak
from tokenshift.trainer import DivergenceGRPOConfig
from tokenshift.trainer.plan.launch import Launch, read_launch
from tokenshift.trainer.plan.memory import LOSS, SAMPLING, STEP, Lengths, training_memory
from tokenshift.trainer.plan.model_shape import ModelShape, model_shape
from tokenshift.trainer.plan.training_plan import changes, training_plan, update_flops

ROOT = Path(__file__).parents[3]
CONFIG = LlamaConfig(
    vocab_size=50,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    tie_word_embeddings=False,
)
LENGTHS = Lengths(prompt=20, completion=100, mean_completion=60)
SHAPE = ModelShape(
    parameters=1000,
    trained=1000,
    itemsize=4,
    multiplied=900,
    attention_width=8,
    layers=2,
    hidden=10,
    vocabulary=30,
    cache_per_token=40,
    kept_per_token=600,
    kept_per_pair=6,
    kept=0,
    state_itemsize=4,
)


def planned(**settings: Any) -> DivergenceGRPOConfig:
    given = {"per_device_train_batch_size": 4, "num_generations": 4, "steps_per_generation": 3, "max_steps": 1}
    return DivergenceGRPOConfig(**{"use_cpu": True, "bf16": False, "report_to": [], **given, **settings})


def sizes(args: Any, launch: Launch, shape: ModelShape = SHAPE, *, peft: bool = False) -> dict[str, int]:
    """Sizes by name, of parts of the same name together."""
    by_name: dict[str, int] = {}
    for part in training_memory(shape, args, launch, LENGTHS, peft=peft):
        by_name[part.name] = by_name.get(part.name, 0) + part.size
    return by_name


def test_sizes_of_a_model_are_counted_without_it() -> None:
    shape = model_shape(CONFIG)
    # embeddings, head, final norm; per layer q, k, v, o, gate, up, down and two norms
    layer = 16 * 16 + 2 * 16 * 8 + 16 * 16 + 3 * 16 * 24 + 2 * 16
    assert shape.parameters == shape.trained == 2 * 50 * 16 + 16 + 3 * layer
    assert shape.multiplied == shape.parameters - 50 * 16
    assert (shape.layers, shape.hidden, shape.vocabulary, shape.head) == (3, 16, 50, 800)
    assert shape.cache_per_token == 2 * 3 * 2 * 4 * 4  # keys and values, layers, heads, width, bytes
    assert model_shape(CONFIG, torch.bfloat16).cache_per_token == shape.cache_per_token // 2


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2"])
def test_activations_are_those_that_a_forward_pass_keeps(architecture: str) -> None:
    model = tiny_model(architecture).train()
    shape, tokens = model_shape(model.config), 96
    known = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, Any] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage
        return tensor

    mask = torch.ones(1, 1, tokens, tokens, dtype=torch.bool)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.base_model(input_ids=torch.zeros(1, tokens, dtype=torch.long), attention_mask=mask, use_cache=False)
    seen = sum(storage.nbytes() for storage in kept.values())
    assert shape.activations(1, tokens, checkpointing=False) == pytest.approx(seen, rel=0.05)


def test_an_adapter_is_trained_alone() -> None:
    shape = model_shape(CONFIG, peft_config=LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    assert shape.trained == 3 * 2 * (16 + 16)
    assert shape.parameters == model_shape(CONFIG).parameters
    memory = sizes(planned(), Launch(on_cpu=True), shape, peft=True)
    assert memory["gradients"] == 4 * shape.trained
    assert memory["optimizer"] == 8 * shape.trained


def test_one_process_in_float32() -> None:
    memory = sizes(planned(gradient_checkpointing=False), Launch(on_cpu=True))
    assert memory["weights"] == memory["gradients"] == 4000
    assert memory["optimizer"] == 8000
    assert memory["KV cache"] == 12 * 120 * 40
    # those of the loss, and of one of two layers while old log-probabilities are computed
    assert memory["activations"] == 1.5 * 4 * (120 * 600 + 120**2 * 6)
    assert "base model" not in memory
    assert "reference's states" not in memory


def test_gradient_checkpointing_keeps_states_and_one_layer() -> None:
    assert SHAPE.activations(3, 7, checkpointing=True) == 3 * (7 * (2 * 10 * 4 + 300) + 49 * 3)


@pytest.mark.parametrize(
    ("engine", "weights", "gradients", "optimizer"),
    [
        ("ZeRO-1", 2000, 2000, 12000 // 8),
        ("ZeRO-2", 2000, 2000 // 8, 12000 // 8),
        ("ZeRO-3", 2000 // 8, 2000 // 8, 12000 // 8),
        ("FSDP2", 4000 // 8, 4000 // 8, 8000 // 8),
        ("DDP", 4000, 4000, 8000),
    ],
)
def test_engines_share_out_what_they_do(engine: str, weights: int, gradients: int, optimizer: int) -> None:
    memory = sizes(planned(bf16=True), Launch(processes=8, engine=engine))
    assert (memory["weights"], memory["gradients"], memory["optimizer"]) == (weights, gradients, optimizer)
    assert memory.get("DDP's buckets", 0) == (4000 if engine == "DDP" else 0)


@pytest.mark.parametrize(
    ("reference", "budget", "kept"), [("base", 16.0, True), ("base", 0.0, False), ("old", 0, True)]
)
def test_states_of_the_reference(reference: str, budget: float, kept: bool) -> None:
    args = planned(divergence="js", divergence_reference=reference, reference_cache_gib=budget, bf16=True)
    parts = training_memory(SHAPE, args, Launch(processes=2, engine="DDP"), LENGTHS, peft=False)
    by_name = {part.name: part for part in parts if part.on_host}
    assert ("reference's states" in by_name) == kept
    if kept:
        assert by_name["reference's states"].size == 12 * 60 * 10 * 2  # rows, tokens, hidden size, bfloat16
    assert ("rollout policy's LM head" in by_name) == (reference == "old")
    assert ("base model" in {part.name for part in parts}) == (reference == "base")


def test_phases_do_not_add_up() -> None:
    parts = [Part("weights", 10), Part("KV cache", 7, (SAMPLING,)), Part("gradients", 3, (LOSS, STEP))]
    parts.append(Part("states", 100, on_host=True))
    assert [peak(parts, phase) for phase in (SAMPLING, LOSS)] == [17, 13]
    assert peak(parts, LOSS, on_host=True) == 100


def test_operations_of_an_update_by_hand() -> None:
    args = planned(gradient_checkpointing=False)
    # per token: two per multiplied parameter; attention 2 x width x layers x tokens
    forward = 120 * (2 * 900 + 2 * 8 * 2 * 120)
    # three passes, and old log-probabilities once per generation; the head's logits made again
    assert update_flops(SHAPE, args, LENGTHS, peft=False) == 4 * (forward * 4 + 2 * 300 * 100)
    twice = planned(gradient_checkpointing=True, num_iterations=2, gradient_accumulation_steps=3)
    assert update_flops(SHAPE, twice, LENGTHS, peft=False) == 12 * (forward * 4.5 + 2 * 300 * 100)


def test_what_runs_out_first_and_what_to_change() -> None:
    args = planned(gradient_checkpointing=False)
    launch, given = Launch(processes=2, engine="DDP"), {"flops": 1e12, "utilization": 0.5}
    plan = training_plan(SHAPE, args, launch, LENGTHS, gpu=2**30 + 500_000, **given)  # CUDA itself takes 1 GiB
    assert not plan.fits
    assert plan.tightest_phase == LOSS
    lines = changes(plan, args)
    assert lines[0].startswith("activations")
    assert lines[0].endswith("gradient_checkpointing true")
    assert plan.seconds == plan.update_flops / 5e11
    assert plan.completions == 12
    assert plan.prompts == 3
    smaller = training_plan(SHAPE, args, launch, LENGTHS, gpu=2**30 + 50_000, **given)
    assert smaller.tightest_phase == SAMPLING, "which comes first"
    assert changes(smaller, args)[0].startswith("KV cache")


@pytest.mark.parametrize(
    ("name", "engine", "on_cpu"),
    [
        ("cpu", "one process", True),
        ("single_gpu", "one process", False),
        ("ddp", "DDP", False),
        ("zero2", "ZeRO-2", False),
        ("zero3", "ZeRO-3", False),
        ("fsdp2", "FSDP2", False),
    ],
)
def test_shipped_launches_are_read(name: str, engine: str, on_cpu: bool) -> None:
    launch = read_launch(ROOT / "accelerate_configs" / f"{name}.yaml")
    assert (launch.engine, launch.on_cpu) == (engine, on_cpu)
    assert read_launch(ROOT / "accelerate_configs" / "zero3.yaml", processes=32, machines=4).processes == 32


def test_mistakes_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ValueError, match="is no accelerate config"):
        read_launch(tmp_path / "list.yaml")
    (tmp_path / "tpu.yaml").write_text("distributed_type: TPU")
    with pytest.raises(ValueError, match="distributed_type=TPU"):
        read_launch(tmp_path / "tpu.yaml")
    args = planned()
    args.optim = "mystery"
    with pytest.raises(ValueError, match="optim='mystery' keeps an amount of memory that is not known"):
        training_memory(SHAPE, args, Launch(), LENGTHS, peft=False)


def test_the_counted_model_is_the_real_one() -> None:
    real = LlamaForCausalLM(CONFIG)
    assert model_shape(CONFIG).parameters == sum(parameter.numel() for parameter in real.parameters())
