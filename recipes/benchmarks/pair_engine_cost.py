"""Time of the pair engine in vLLM: both policies in one engine against vLLM with one model, in the same batch."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tokenshift.analysis.cross_sampling.intervention import Intervention
from tokenshift.analysis.sampling.generators import Sampling, VLLMGenerator
from tokenshift.analysis.sampling.requests import Request
from tokenshift.analysis.sampling.token_ids import encode_prompt
from tokenshift.recipes.inputs.engines import engine_model
from tokenshift.recipes.inputs.models import find_model

ALONE = "vLLM, one model, its own top-p sampling"
DRAWN = "vLLM, one model, the project's draws"
CROSS = "pair engine: cross-sampling"
SCORED = "pair engine: sampling with every column of the table"
EXCHANGED = "vLLM, two engines that are asked for one token a call"

RESPONSES, LENGTH = 32, 64
"""Responses, all in one batch, and tokens of each: none ends before."""

EXCHANGED_LENGTH = 8
"""Tokens of each response that the exchanging engines make; the benchmark scales their time to `LENGTH`."""

EPSILON = 0.05
"""JS above which RL draws, in nats."""

PROMPT = "Write a short story about a river and a stone.\n"


@dataclass(frozen=True)
class PairEngineCost:
    """The functions that are timed; each makes `RESPONSES` x `LENGTH` tokens.

    Attributes:
        functions: by what they are; `EXCHANGED` makes `EXCHANGED_LENGTH` tokens a response.
        words: the shape of the work.
        close: ends the engines.
    """

    functions: dict[str, Callable[[], object]]
    words: str
    close: Callable[[], None]


def pair_engine_cost(model: str, dtype: str = "float32", eager: bool = True) -> PairEngineCost:
    """
    Args:
        model: a model by name, which is both base and RL model: the cost does not depend on weights.
        dtype: of weights and caches.
        eager: whether models run without compilation.

    Raises:
        ValueError: if vLLM is missing or of another version, or does not start.
    """
    from tokenshift.analysis.cross_sampling.pair_engine import PairDecoder
    from tokenshift.analysis.token_table.sampled_table import ScoredSampling, ScoringSampler
    from tokenshift.analysis.vllm_engine.engine import EngineOptions, VLLMEngine
    from tokenshift.analysis.vllm_engine.generator import EngineGenerator

    source = find_model("model", model)
    prompt = encode_prompt(source.tokenizer, PROMPT if model != "pocket" else "")
    requests = [Request((n, 0), prompt) for n in range(RESPONSES)]
    sampling = Sampling(max_new_tokens=LENGTH)
    longest = len(prompt) + LENGTH
    more: dict[str, Any] = {"enable_prefix_caching": False, "max_num_seqs": RESPONSES}

    def by_itself(sampling: Sampling, **changed: Any) -> VLLMGenerator:
        """An engine that draws by vLLM's own top-p sampling."""
        return VLLMGenerator(
            source.path,
            source.revision,
            sampling,
            set(),
            dtype=dtype,
            enforce_eager=eager,
            max_model_len=longest,
            gpu_memory_utilization=0.15,
            **(more | changed),
        )

    options = EngineOptions(dtype, longest=longest, memory_share=0.15, eager=eager, more=more)
    whole = engine_model(source)
    one, pair = VLLMEngine(whole, None, set(), options), VLLMEngine(whole, whole, set(), options)
    alone = by_itself(sampling)
    asked = by_itself(replace(sampling, max_new_tokens=1), enable_prefix_caching=True)

    def exchanged() -> None:
        """The two engines' calls for each token, made by one engine twice: each call holds all texts so far."""
        texts = list(requests)
        for _ in range(EXCHANGED_LENGTH):
            asked(texts)
            texts = [
                Request(text.row, [*text.prompt_ids, *token]) for text, token in zip(texts, asked(texts), strict=True)
            ]

    vocabulary = source.config.get_text_config().vocab_size
    decoder = PairDecoder(lambda: pair, vocabulary)
    scorer = ScoringSampler(lambda: pair, ScoredSampling("rl", sampling, sampling.top_p, vocabulary), source.tokenizer)
    drawn = EngineGenerator(lambda: one, sampling)
    plan = Intervention("js", EPSILON)
    words = {
        "model": model,
        "responses": RESPONSES,
        "tokens each": LENGTH,
        "dtype": dtype,
        "compiled": not eager,
        **pair.facts,
    }

    def close() -> None:
        one.close()
        pair.close()
        alone.close()
        asked.close()

    return PairEngineCost(
        {
            ALONE: lambda: _check_lengths(alone(requests)),
            DRAWN: lambda: _check_lengths(drawn(requests)),
            CROSS: lambda: _check_lengths(
                response.completion_ids for response in decoder("forward", plan, requests, sampling)
            ),
            SCORED: lambda: _check_lengths(trajectory.completion_ids for trajectory in scorer(requests)[0]),
            EXCHANGED: exchanged,
        },
        json.dumps(words),
        close,
    )


def _check_lengths(completions: Iterable[Sequence[int]]) -> None:
    """Refuse a measurement in which responses ended: the rates count `RESPONSES` x `LENGTH` tokens.

    Raises:
        RuntimeError: if one has another length.
    """
    lengths = [len(completion) for completion in completions]
    if lengths != [LENGTH] * RESPONSES:
        raise RuntimeError(f"Responses of {min(lengths)} to {max(lengths)} tokens were made in place of {LENGTH}.")
