"""What the processes of an engine are asked for beside vLLM's own work."""

from typing import Any


class DrainExtension:
    """Added to vLLM's workers by `worker_extension_cls`; callables over RPC are refused by vLLM."""

    def tokenshift_drain(self) -> dict[str, Any]:
        """The records of all steps since the last call; see `RowSteps.drain`."""
        from tokenshift.analysis.vllm_engine.processors import STEPS

        return STEPS.drain()
