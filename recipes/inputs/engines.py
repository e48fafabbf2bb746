"""The vLLM engine that a recipe's arguments ask for, and what is wrong with them before it is started."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tokenshift.analysis.sampling.token_ids import context_length, context_reason
from tokenshift.analysis.vllm_engine.installation import check_installed, chosen_runner
from tokenshift.recipes.inputs.models import ModelSource, model_ends

if TYPE_CHECKING:
    from tokenshift.analysis.vllm_engine.engine import EngineModel, EngineOptions, VLLMEngine

TRANSFORMERS, VLLM = "transformers", "vllm"
"""Names of the engines that make responses."""

ENGINE_NAMES = ("tree", "draft", "lockstep", "transformers", "vllm")
"""Every engine that some recipe takes; the first three are of cross-sampling alone."""

VLLM_ARGUMENTS = (
    *("vllm_tensor_parallel_size", "vllm_gpu_memory_utilization", "vllm_max_model_length", "vllm_runner"),
    "vllm_enforce_eager",
)
"""Arguments that say how vLLM runs, on which no row depends but for rounding."""


@dataclass
class EngineArguments:
    """
    The engine that makes responses, and how vLLM runs.

    Parameters:
        engine (`str`):
            `transformers`, or `vllm`, which gives the same responses but for rounding (another extra).
        vllm_tensor_parallel_size, vllm_gpu_memory_utilization, vllm_max_model_length, vllm_runner, vllm_enforce_eager:
            How vLLM runs: GPUs that share a model, share of each GPU's memory, tokens of the longest text, its model
            runner (`v1` or `v2`), and whether models run without compilation.
    """

    engine: str = field(
        default="transformers", metadata={"help": "transformers, or vllm with the same draws; another extra."}
    )
    vllm_tensor_parallel_size: int = field(default=1, metadata={"help": "GPUs that share a model in vLLM."})
    vllm_gpu_memory_utilization: float | None = field(
        default=None, metadata={"help": "Share of each GPU's memory for vLLM."}
    )
    vllm_max_model_length: int | None = field(
        default=None, metadata={"help": "Longest text in vLLM, in tokens; prompts and max_new_tokens by default."}
    )
    vllm_runner: str | None = field(default=None, metadata={"help": "vLLM's model runner: v1 or v2."})
    vllm_enforce_eager: bool = field(default=False, metadata={"help": "Run vLLM's models without compilation."})

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines that can be asked for."""
        return TRANSFORMERS, VLLM

    def check_engine_name(self) -> None:
        """Refuse an engine that the recipe does not have.

        Raises:
            ValueError: with the engines that it has.
        """
        if self.engine not in self.engines:
            *others, last = self.engines
            raise ValueError(f"engine={self.engine!r} is not known; choose {', '.join(others)} or {last}.")


def engine_without_effect(engine: str) -> dict[str, str]:
    """Options that have no effect beside the engine, with the reason and what to do."""
    if engine == VLLM:
        placed = "vLLM places models itself; give vllm_tensor_parallel_size, or leave out this or engine vllm."
        both = "vLLM holds both models in one engine; leave out this or engine vllm."
        return {
            "attn_implementation": "vLLM has attention of its own; leave it out, or engine vllm.",
            **dict.fromkeys(("device_map", "offload_folder"), placed),
            "one_model_at_a_time": both,
        }
    return dict.fromkeys(VLLM_ARGUMENTS, f"it is of engine vllm, and engine is {engine}; leave it out.")


def engine_facts(args: EngineArguments) -> dict[str, str]:
    """The version of vLLM and its model runner, for metadata; nothing where vLLM does not run."""
    if args.engine != VLLM:
        return {}
    return {"vllm": check_installed(), "vllm_runner": chosen_runner(args.vllm_runner)}


def engine_options(args: EngineArguments, dtype: str, longest: int | None, *, scores: bool = False) -> "EngineOptions":
    """The options of vLLM that a recipe's arguments ask for.

    Args:
        args: the recipe's arguments.
        dtype: of weights and caches.
        longest: tokens of the longest prompt and its response, where no length is given.
        scores: whether texts are scored.
    """
    from tokenshift.analysis.vllm_engine.engine import EngineOptions

    return EngineOptions(
        dtype,
        args.vllm_tensor_parallel_size,
        args.vllm_gpu_memory_utilization,
        args.vllm_max_model_length or longest,
        args.vllm_runner,
        args.vllm_enforce_eager,
        scores,
    )


def engine_model(source: ModelSource) -> "EngineModel":
    """A model as the engine loads it."""
    from tokenshift.analysis.vllm_engine.engine import EngineModel

    return EngineModel(source.path, source.revision, source.config, source.trust_remote_code)


def check_engine_arguments(args: EngineArguments) -> None:
    """Refuse engines and options that cannot be, and vLLM that is missing or was not tested.

    Raises:
        ValueError: for whatever is wrong, in one line.
    """
    if args.engine != VLLM:
        return
    check_installed()
    if args.vllm_runner is not None:
        chosen_runner(args.vllm_runner)
    engine_options(args, "auto", None)


def check_engine(
    args: EngineArguments, dtype: str, sources: Sequence[ModelSource], longest: int, *, pair: bool
) -> None:
    """Refuse models that the engine does not hold, before one is loaded.

    Args:
        args: the recipe's arguments.
        dtype: of weights and caches.
        sources: the models; of a pair the base comes first.
        longest: tokens of the longest prompt and its response.
        pair: whether the two models stand in one engine.

    Raises:
        ValueError: for an adapter, an architecture that is not served, two architectures, or a length that is too
            short for the responses or too long for a model.
    """
    if args.engine != VLLM:
        return
    from tokenshift.analysis.vllm_engine.engine import check_memory, check_served

    for source in sources:
        if source.base is not None:
            raise ValueError(
                f"engine='vllm' cannot be with the adapter {source.name!r}: merge it into its base "
                "(merge_and_unload) and save the model, or use engine='transformers'."
            )
        context, length = context_length(source.config), args.vllm_max_model_length
        if length is not None and context is not None and length > context:
            raise ValueError(
                f"vllm_max_model_length={length}, but {source.name!r} reads {context} tokens"
                f"{context_reason(source.config)}: lower it, or leave it out."
            )
        if length is not None and longest > length:
            raise ValueError(
                f"vllm_max_model_length={length}, but the longest prompt and its response may have {longest} tokens: "
                "raise it, or lower max_new_tokens."
            )
    models = [engine_model(source) for source in sources]
    if pair:
        base, rl = models
        check_served(rl, base)
        check_memory(models, engine_options(args, dtype, longest))
        return
    for model in models:
        check_served(model, None)
        check_memory([model], engine_options(args, dtype, longest))


def engine_starter(
    args: EngineArguments,
    dtype: str,
    source: ModelSource,
    base: ModelSource | None = None,
    longest: int | None = None,
    *,
    scores: bool = False,
) -> "Callable[[], VLLMEngine]":
    """A function that starts an engine with a model, or with a pair.

    Args:
        args: the recipe's arguments.
        dtype: of weights and caches.
        source: the model; of a pair, the RL model.
        base: the base of a pair.
        longest: tokens of the longest prompt and its response; what the models read when None.
        scores: whether texts are scored by a pair.
    """
    sources = [source] if base is None else [source, base]
    if longest is None:
        longest = min((length for one in sources if (length := context_length(one.config))), default=None)

    def start() -> "VLLMEngine":
        from tokenshift.analysis.vllm_engine.engine import VLLMEngine

        ends = set[int]().union(*(model_ends(one) for one in sources))
        options = engine_options(args, dtype, longest, scores=scores)
        return VLLMEngine(engine_model(source), None if base is None else engine_model(base), ends, options)

    return start
