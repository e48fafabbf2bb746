"""Adds to vLLM's worker processes a call that returns their records."""

from typing import Any


class DrainExtension:
    """Added to vLLM's workers by `worker_extension_cls`; callables over RPC are refused by vLLM."""

    reload_weights: Any
    model_runner: Any

    def tokenshift_drain(self) -> dict[str, Any]:
        """The records of all steps since the last call; see `RowSteps.drain`."""
        from tokenshift.analysis.vllm_engine.processors import STEPS

        return STEPS.drain()

    def tokenshift_score(
        self, function: str, settings: str, texts: list[tuple[list[int], list[int]]], vocabulary: int
    ) -> None:
        """Take texts whose numbers are wanted; see `PrefillScorer.begin`."""
        from tokenshift.analysis.vllm_engine.pair_model import SCORER
        from tokenshift.analysis.vllm_engine.prefill_scoring import ScoredText

        SCORER.begin(function, settings, [ScoredText(*text) for text in texts], vocabulary)

    def tokenshift_scores(self) -> list[tuple[int, dict[str, Any]]]:
        """The numbers of the texts that were read, by their index."""
        from tokenshift.analysis.vllm_engine.pair_model import SCORER

        return list(SCORER.drain().items())

    def tokenshift_take_weights(self, folder: str) -> None:
        """Take the weights of a folder in the place of the model's own.

        vLLM makes its kernels' copies of weights anew as they are read. An LM head that is tied to the embeddings is
        not read itself, and its copy, which it has on a CPU, is made anew here.
        """
        from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

        self.reload_weights(weights_path=folder)
        for module in self.model_runner.get_model().modules():
            if isinstance(module, ParallelLMHead):
                module.quant_method.process_weights_after_loading(module)
