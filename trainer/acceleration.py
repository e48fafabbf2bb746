"""Ways to train faster or longer that hide from the trainer what it weights by: compiled models, kernels, split texts.

Each is refused with its reason where it does not work; `docs/how-to/scaling.md` says what would be needed.
"""

import os
from typing import Any

SPLIT_TEXTS = {"cp_size": "context parallelism", "sp_size": "sequence parallelism"}
"""Sizes in the variables `PARALLELISM_CONFIG_*` of a launcher, by what they split; TRL refuses those of configs."""

ASYNC = (
    "AsyncGRPO trains on completions that several policies have sampled, each token by another one perhaps, while the "
    "weights here compare with the one policy that sampled a whole generation. Use GRPO, with use_vllm for speed."
)


def check_acceleration(args: Any) -> None:
    """Refuse what a config or a launcher asks for and the trainer cannot do.

    Args:
        args: a [`DivergenceGRPOConfig`].

    Raises:
        ValueError: with the reason, and what to use instead.
    """
    backend = os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no").lower()
    if args.watches_tokens and args.compares_distributions and (args.torch_compile or backend not in ("no", "")):
        given = "torch_compile=True" if args.torch_compile else f"The accelerate config's dynamo backend {backend!r}"
        way = "torch_compile=False" if args.torch_compile else "dynamo_backend: 'no' there"
        raise ValueError(
            f"{given} hides the hidden states from which whole distributions are compared; set {way}, or use "
            "divergence k1, k2 or k3."
        )
    if args.use_liger_kernel:
        raise ValueError(
            "use_liger_kernel=True would give the policy kernels that the base model it is compared with "
            "lacks, so that divergences would measure kernels too; TRL deprecates it, and applies no fused loss. "
            "Set use_liger_kernel=False: the trainer's loss needs no whole logits either."
        )
    for name, what in SPLIT_TEXTS.items():
        size = int(os.environ.get(f"PARALLELISM_CONFIG_{name.upper()}") or 1)
        if size > 1:
            raise ValueError(
                f"{name}={size} asks for {what}: each process would see a part of every completion, while TRL's GRPO "
                f"loss and the weights need whole ones. Set {name} to 1; ZeRO-3 or FSDP2 with gradient checkpointing, "
                "or smaller batches, make room for long texts."
            )
