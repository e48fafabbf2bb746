"""Memory of a training, part by part, in the four phases that a generation of completions goes through."""

from dataclasses import dataclass
from typing import Any

import torch

from tokenshift.analysis.divergence.token_statistics import workspace_bytes
from tokenshift.analysis.plan.parts import CUDA_CONTEXT, Part
from tokenshift.trainer.plan.launch import Launch
from tokenshift.trainer.plan.model_shape import ModelShape
from tokenshift.trainer.reference_cache import GIB

SAMPLING, SCORING, LOSS, STEP = PHASES = ("sampling", "scoring", "loss", "step")
"""Completions are sampled; old and reference log-probabilities and states are computed; the loss and its gradients
are; the optimizer makes its step."""

OPTIMIZER_STATES = {"adamw": 2.0, "adam": 2.0, "sgd": 0.0, "lion": 1.0, "adafactor": 0.01, "rmsprop": 1.0, "lomo": 0.0}
"""Beginning of an optimizer's name -> numbers that it keeps per trained parameter."""

TILE_TOKENS, TILE_COLUMNS = 4096, 32768
"""Largest tile of logits that TRL's loss makes at a time."""

TILES_ON_CPU = 8.25
"""Tiles alive at once in the backward pass of TRL's loss without Triton, which works in place."""

LIVE_PARAMETERS = 10**9
"""Parameters that DeepSpeed's ZeRO-3 holds gathered at most (`stage3_max_live_parameters`)."""

DECODING_COPIES = 4
"""Matrices of a step's logits alive at once while a token is drawn."""


@dataclass(frozen=True)
class Lengths:
    """Tokens of a training's texts.

    Attributes:
        prompt: of the longest prompt.
        completion: of the longest completion.
        mean_completion: of a completion on average.
    """

    prompt: int
    completion: int
    mean_completion: int

    @property
    def total(self) -> int:
        """Tokens of a padded sequence."""
        return self.prompt + self.completion


def optimizer_states(name: str) -> float:
    """Numbers that an optimizer keeps per trained parameter, in units of 4 bytes for 8-bit ones too.

    Raises:
        ValueError: for an optimizer whose memory is not known here.
    """
    kind = next((kind for kind in sorted(OPTIMIZER_STATES, key=len, reverse=True) if name.startswith(kind)), None)
    if kind is None:
        raise ValueError(
            f"optim={name!r} keeps an amount of memory that is not known here; known are those that begin with "
            f"{', '.join(OPTIMIZER_STATES)}."
        )
    return OPTIMIZER_STATES[kind] / (4 if "8bit" in name else 1)


def training_memory(shape: ModelShape, args: Any, launch: Launch, lengths: Lengths, *, peft: bool) -> list[Part]:
    """All parts of a training's memory, per process.

    Args:
        shape: of the policy.
        args: the `DivergenceGRPOConfig`.
        launch: how it is launched.
        lengths: of its texts.
        peft: whether an adapter is trained.

    Raises:
        ValueError: for an optimizer whose memory is not known here.
    """
    micro_batch = args.per_device_train_batch_size
    rows = micro_batch * (args.steps_per_generation or 1)
    parts = [
        *_weights(shape, args, launch, peft),
        *_rollouts(shape, args, launch, lengths, rows),
        *_loss(shape, args, launch, lengths, micro_batch),
    ]
    if args.compares_distributions and args.watches_tokens:
        parts += _divergence(shape, args, launch, lengths, micro_batch, rows)
    if not launch.on_cpu:
        parts.append(Part("CUDA and its allocator", CUDA_CONTEXT, note="about"))
    return [part for part in parts if part.size]


def needs_base(args: Any, peft: bool) -> bool:
    """Whether a second model is loaded: the reference of beta, or of divergences."""
    compares = args.compares_distributions and args.watches_tokens and args.divergence_reference == "base"
    return not peft and (args.beta > 0 or compares or args.probe_steps is not None)


def compute_itemsize(shape: ModelShape, args: Any) -> int:
    """Bytes of the numbers that are multiplied."""
    return 2 if args.bf16 or args.fp16 else shape.itemsize


def _weights(shape: ModelShape, args: Any, launch: Launch, peft: bool) -> list[Part]:
    """Weights, gradients, optimizer, the base model, and what the engine adds."""
    half = bool(args.bf16 or args.fp16)
    upcast = launch.engine == "FSDP2" and half  # accelerate trains float32 copies there
    itemsize = 4 if upcast else 2 if launch.is_deepspeed and half else shape.itemsize
    masters = 4 if launch.is_deepspeed and half else 0
    of = {
        "parameters": launch.processes if launch.shares_parameters else 1,
        "gradients": launch.processes if launch.shares_gradients else 1,
        "optimizer": launch.processes if launch.shares_optimizer else 1,
    }
    optimizer = str(getattr(args.optim, "value", args.optim))
    states = optimizer_states(optimizer)
    frozen = shape.parameters - shape.trained if not peft else shape.parameters
    trained = shape.trained
    weights = (frozen * shape.itemsize + trained * itemsize) if peft else shape.parameters * itemsize
    shared = f", 1/{launch.processes} each" if launch.processes > 1 else ""
    per_state = 4 if masters else itemsize
    parts = [
        Part(
            "weights",
            weights // of["parameters"],
            on_host=launch.offloads_parameters,
            note=f"{shape.parameters / 1e9:.3g}B x {itemsize} bytes{shared if of['parameters'] > 1 else ''}",
        ),
        Part(
            "gradients",
            trained * itemsize // of["gradients"],
            (LOSS, STEP) if _accumulates(args) or launch.shares_gradients else (STEP,),
            note=f"{trained / 1e9:.3g}B x {itemsize} bytes{shared if of['gradients'] > 1 else ''}",
        ),
        Part(
            "optimizer",
            int(trained * (masters + states * per_state)) // of["optimizer"],
            on_host=launch.offloads_optimizer,
            note=f"{optimizer}{', with float32 masters' if masters else ''}{shared if of['optimizer'] > 1 else ''}",
        ),
    ]
    if launch.engine == "DDP":
        parts.append(Part("DDP's buckets", trained * itemsize, note="a second copy of the gradients"))
    if needs_base(args, peft):
        size = shape.parameters * shape.itemsize // of["parameters"]
        parts.append(Part("base model", size, on_host=launch.offloads_parameters, note="in the dtype it is loaded in"))
    if launch.shares_parameters:
        compute = compute_itemsize(shape, args)
        live = LIVE_PARAMETERS if launch.is_deepspeed else 2 * shape.parameters // shape.layers + shape.head
        parts.append(
            Part("gathered weights", min(shape.parameters, live) * compute, (SCORING, LOSS), note="of several layers")
        )
        if not args.use_vllm:
            parts.append(Part("gathered weights", shape.parameters * compute, (SAMPLING,), note="of the whole model"))
    return parts


def _accumulates(args: Any) -> bool:
    return bool(args.gradient_accumulation_steps > 1)


def _rollouts(shape: ModelShape, args: Any, launch: Launch, lengths: Lengths, rows: int) -> list[Part]:
    """The cache of keys and values, or the engine that samples; and the completions."""
    parts = [
        Part("completions", rows * (16 * lengths.total + 16 * lengths.completion), note=f"{rows} rows a process"),
    ]
    if not args.use_vllm:
        cache = rows * lengths.total * shape.cache_per_token
        drawn = rows * shape.vocabulary * 4 * DECODING_COPIES
        return [
            *parts,
            Part("KV cache", cache, (SAMPLING,), note=f"{rows} sequences of {lengths.total} tokens at once"),
            Part("logits of a step", drawn, (SAMPLING,)),
        ]
    return parts


def engine_part(args: Any, gpu: int) -> list[Part]:
    """The rollout engine of vLLM in the training's own processes, on GPUs of `gpu` bytes."""
    if not args.use_vllm or args.vllm_mode != "colocate":
        return []
    phases = (SAMPLING,) if args.vllm_enable_sleep_mode else PHASES
    share = args.vllm_gpu_memory_utilization
    note = f"vllm_gpu_memory_utilization={share:g}, {'asleep' if args.vllm_enable_sleep_mode else 'kept'} in training"
    return [Part("rollout engine", int(share * gpu), phases, note=note)]


def _loss(shape: ModelShape, args: Any, launch: Launch, lengths: Lengths, micro_batch: int) -> list[Part]:
    """Activations, and the logits and the gradient of the LM head."""
    tokens = micro_batch * lengths.total
    compute = compute_itemsize(shape, args)
    scored = tokens if launch.on_cpu else micro_batch * lengths.completion
    tile = min(scored, TILE_TOKENS) * min(shape.vocabulary, TILE_COLUMNS)
    tiles = int(tile * (compute + 4 * (TILES_ON_CPU - 1))) if launch.on_cpu else tile * compute
    kept = shape.activations(micro_batch, lengths.total, checkpointing=args.gradient_checkpointing)
    one_layer = shape.activations(micro_batch, lengths.total, checkpointing=False) // shape.layers
    return [
        Part(
            "activations",
            kept,
            (LOSS,),
            note=f"{micro_batch} x {lengths.total} tokens"
            + (", gradient checkpointing" if args.gradient_checkpointing else ""),
        ),
        Part("activations", one_layer, (SCORING,), note="of one layer, without gradients"),
        Part("logits of the loss", tiles, (LOSS,), note=f"{min(scored, TILE_TOKENS)} tokens at a time"),
        Part(
            "gradient of the LM head",
            shape.head * 4 + scored * shape.hidden * 4 if shape.trained >= shape.parameters else 0,
            (LOSS,),
            note="float32, while the loss is differentiated",
        ),
    ]


def _divergence(
    shape: ModelShape, args: Any, launch: Launch, lengths: Lengths, micro_batch: int, rows: int
) -> list[Part]:
    """States of the reference, its head, and the workspace of the statistics."""
    compute = compute_itemsize(shape, args)
    states = rows * lengths.mean_completion * shape.hidden * compute
    anew = args.divergence_reference == "base" and states > args.reference_cache_gib * GIB
    device = torch.device("cpu" if launch.on_cpu else "cuda")
    tokens = micro_batch * lengths.completion
    workspace = workspace_bytes(device, shape.vocabulary, tokens, truncates=args.divergence_top_p < 1)
    note = "logits of a chunk and the states of a micro-batch"
    workspace += 2 * tokens * shape.hidden * compute
    if compute != shape.itemsize:
        workspace += (2 if args.divergence_reference == "base" else 1) * shape.head * compute
        note += ", heads in half precision"
    parts = [Part("divergence workspace", workspace, (LOSS,), note=note)]
    on_host = not launch.on_cpu
    if not anew:
        note = f"{rows} x {lengths.mean_completion} tokens x {shape.hidden} x {compute} bytes"
        parts.append(Part("reference's states", states, on_host=on_host, note=note))
    if args.divergence_reference == "old":
        head = shape.head * compute
        parts.append(Part("rollout policy's LM head", head, on_host=on_host))
        if on_host:
            parts.append(Part("rollout policy's LM head", head, (LOSS,), note="copied from host memory"))
    return parts
