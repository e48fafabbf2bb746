"""vLLM for CPUs as TRL's colocated engine: its weights can be exchanged.

vLLM packs the weights of linear layers for a CPU and frees the originals, so that TRL's weight sync finds nothing to
write to. With this patch, which has to come before an engine is built, they stay ordinary parameters.
"""

import functools
import os

ON_CPU = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "TORCHDYNAMO_DISABLE": "1",
}
"""Environment of a small engine on a CPU."""


def keep_weights() -> None:
    """Patch vLLM in this process; engines compile nothing, which would take a minute, and compute in float32.

    Of a model in float32 vLLM would make one in half precision.
    """
    os.environ |= ON_CPU
    import torch
    import trl.generation.vllm_generation as rollouts
    import vllm.model_executor.layers.utils as layers

    def dispatch(layer: torch.nn.Module, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    layers.dispatch_cpu_unquantized_gemm = dispatch
    rollouts.LLM = functools.partial(rollouts.LLM, enforce_eager=True, dtype="float32")
