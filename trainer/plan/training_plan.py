"""The plan of a training: what each process holds in each phase, what runs out first, and how long an update takes."""

from dataclasses import dataclass
from typing import Any

from tokenshift.analysis.plan.parts import MemoryPlan
from tokenshift.trainer.plan.launch import Launch
from tokenshift.trainer.plan.memory import PHASES, Lengths, engine_part, training_memory
from tokenshift.trainer.plan.model_shape import ModelShape
from tokenshift.trainer.reference_cache import GIB


@dataclass(frozen=True, kw_only=True)
class TrainingPlan(MemoryPlan):
    """What a training will need; `capacity` is a GPU's, and None on CPU, where processes share what the machine has.

    Attributes:
        launch: processes and engine.
        lengths: tokens of texts.
        prompts, completions: of a generation, over all processes.
        tokens: most completion tokens of a generation, over all processes.
        updates_per_generation: optimizer updates made on a generation.
        update_flops: floating-point operations of a process for an update, passes over a generation shared out.
        seconds: an update's, without sampling.
    """

    launch: Launch
    lengths: Lengths
    prompts: int
    completions: int
    tokens: int
    updates_per_generation: float
    update_flops: float
    seconds: float


def training_plan(
    shape: ModelShape,
    args: Any,
    launch: Launch,
    lengths: Lengths,
    *,
    gpu: int,
    flops: float,
    utilization: float,
    peft: bool = False,
) -> TrainingPlan:
    """The plan of a training.

    Args:
        shape: of the policy.
        args: the `DivergenceGRPOConfig`, made for as many processes as are planned.
        launch: how it is launched.
        lengths: of its texts.
        gpu: bytes of a GPU's memory.
        flops: floating-point operations that a process can make per second.
        utilization: the share of these that it makes.
        peft: whether an adapter is trained.

    Raises:
        ValueError: for an optimizer whose memory is not known here.
    """
    parts = training_memory(shape, args, launch, lengths, peft=peft)
    if not launch.on_cpu:
        parts += engine_part(args, gpu)
    completions = int(args.generation_batch_size)
    operations = update_flops(shape, args, lengths, peft=peft)
    return TrainingPlan(
        launch=launch,
        lengths=lengths,
        parts=parts,
        phases=PHASES,
        capacity=None if launch.on_cpu else gpu,
        prompts=completions // args.num_generations,
        completions=completions,
        tokens=completions * lengths.completion,
        updates_per_generation=args.updates_per_generation,
        update_flops=operations,
        seconds=operations / (flops * utilization),
    )


def update_flops(shape: ModelShape, args: Any, lengths: Lengths, *, peft: bool) -> float:
    """Floating-point operations of a process for one update, padding included.

    A backward pass is two forward passes (one for an adapter, whose base has no gradients), and gradient checkpointing
    makes one more. The loss makes logits twice. Old log-probabilities, a reference's and a base's states are passes
    over the generation, once for `num_iterations` updates of a row.
    """
    rows = args.per_device_train_batch_size * args.gradient_accumulation_steps
    whole = shape.forward_flops(lengths.total) * lengths.total
    passes = (2.0 if peft else 3.0) + bool(args.gradient_checkpointing)
    once = 0.0  # passes per generation
    if args.has_old_logps:
        once += 1
    if args.beta > 0:
        once += 1
    divergence = 0.0
    if args.compares_distributions and args.watches_tokens:
        once += 1
        divergence = 2 * 2.0 * shape.head * lengths.mean_completion
    return rows * (whole * (passes + once / args.num_iterations) + 2.0 * shape.head * lengths.completion + divergence)


def changes(plan: TrainingPlan, args: Any) -> list[str]:
    """What to change so that the tightest phase takes less, the largest part of it first; one line each.

    Args:
        plan: of the training.
        args: its `DivergenceGRPOConfig`.
    """
    ways = {name: _way_out(name, plan, args) for name in plan.largest_parts()}
    return [f"{name}, {size / GIB:.3g} GiB: {ways[name]}" for name, size in plan.largest_parts().items() if ways[name]]


def _way_out(name: str, plan: TrainingPlan, args: Any) -> str | None:
    """How one part gets smaller; None where nothing is known."""
    launch, micro_batch = plan.launch, args.per_device_train_batch_size
    fewer_rows = (
        f"per_device_train_batch_size {micro_batch // 2 or 1} with gradient_accumulation_steps "
        f"{args.gradient_accumulation_steps * 2}"
    )
    more = f"more processes than {launch.processes}"
    lora = "LoRA (--use_peft true)"
    if name == "activations":
        if not args.gradient_checkpointing:
            return "gradient_checkpointing true"
        return fewer_rows if micro_batch > 1 else "a smaller max_completion_length"
    if name in ("optimizer", "gradients", "DDP's buckets"):
        return lora if launch.on_cpu else more if launch.shares_optimizer else f"--launch zero2, or {lora}"
    if name in ("weights", "base model"):
        if launch.on_cpu:
            return lora if name == "base model" else None
        return more if launch.shares_parameters else f"--launch zero3 or fsdp2, or {lora}"
    if name == "rollout engine":
        share = args.vllm_gpu_memory_utilization
        asleep = args.vllm_enable_sleep_mode
        return f"a vllm_gpu_memory_utilization below {share:g}" if asleep else "vllm_enable_sleep_mode true"
    if name in ("KV cache", "logits of a step"):
        return "a smaller generation_batch_size, or --use_vllm true"
    if name in ("logits of the loss", "divergence workspace"):
        return fewer_rows if micro_batch > 1 else None
    if name == "reference's states":
        return "a smaller reference_cache_gib" if args.divergence_reference == "base" else None
    return None
