"""Settings of vLLM rollouts that could not work here, found before a model is loaded."""

from collections.abc import Sequence
from typing import Any

import torch


def sampling_group(trainer: Any) -> int:
    """Number of the processes that sample together: those that share a colocated vLLM engine have the same one.

    Each of them draws the tokens of the whole group, so that all must draw the same.
    """
    args, rank = trainer.args, int(trainer.accelerator.process_index)
    if not getattr(args, "use_vllm", False) or args.vllm_mode != "colocate":
        return rank
    return rank // int(args.vllm_tensor_parallel_size)


def check_vllm_settings(args: Any, processes: int, *, on_gpu: bool | None = None) -> None:
    """Refuse settings of vLLM that need another machine or launch.

    Args:
        args: a [`~trl.GRPOConfig`].
        processes: of the run.
        on_gpu: whether the training computes on a GPU; found out when None.

    Raises:
        ValueError: with what is missing and what to use instead.
    """
    if not args.use_vllm:
        return
    if args.vllm_mode not in ("colocate", "server"):
        raise ValueError(f"vllm_mode={args.vllm_mode!r} is not known; choose one of colocate, server.")
    shared = args.vllm_tensor_parallel_size
    if args.vllm_mode == "colocate" and (shared < 1 or processes % shared):
        raise ValueError(
            f"vllm_tensor_parallel_size={shared} does not divide the {processes} process{'es'[: 2 * (processes > 1)]} "
            "of this run, which share colocated engines in groups of that size; set it to a divisor."
        )
    if on_gpu if on_gpu is not None else torch.accelerator.is_available() and not args.use_cpu:
        return
    if args.vllm_mode == "server":
        raise ValueError(
            "vllm_mode='server' needs a GPU: TRL sends the policy's weights to the server by NCCL. Use "
            "vllm_mode='colocate', or no vLLM (use_vllm=False)."
        )
    if args.vllm_enable_sleep_mode:
        raise ValueError(
            "vllm_enable_sleep_mode=True needs a GPU: vLLM on a CPU cannot free its weights and caches and take them "
            "back. Set vllm_enable_sleep_mode=False."
        )


def check_vllm_length(args: Any, prompt_lengths: Sequence[int] = ()) -> None:
    """Refuse a colocated engine whose longest text is shorter than a prompt and its completion may be.

    vLLM would end such completions early, so that truncation, rewards and lengths would follow its limit.

    Args:
        args: a [`~trl.GRPOConfig`].
        prompt_lengths: tokens of prompts; empty while none is known.

    Raises:
        ValueError: with the length that is needed.
    """
    length = args.vllm_max_model_length
    if not args.use_vllm or args.vllm_mode != "colocate" or length is None:
        return
    prompt, completion = max(prompt_lengths, default=1), args.max_completion_length or 1
    if prompt + completion > length:
        raise ValueError(
            f"vllm_max_model_length={length} is less than the {prompt + completion} tokens of a prompt ({prompt}) and "
            f"its completion (max_completion_length={completion}), which vLLM would end early; set "
            f"vllm_max_model_length to {prompt + completion} or more, or max_completion_length lower."
        )
