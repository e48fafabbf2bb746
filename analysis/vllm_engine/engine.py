"""Starts vLLM with one model or with a pair, and runs requests whose tokens the project's own draws choose."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate import PartialState

from tokenshift.analysis.sampling.requests import Request
from tokenshift.analysis.vllm_engine.installation import RUNNER_VARIABLE, check_installed, chosen_runner
from tokenshift.analysis.vllm_engine.pair_architectures import PARENT_VARIABLE, pair_name, register
from tokenshift.analysis.vllm_engine.prefill_scoring import ScoredText
from tokenshift.analysis.vllm_engine.row_steps import RowRequest

LAUNCH_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Variables of `accelerate launch`, which an engine of its own per process must not take for its own."""

DEVICES_VARIABLE = "CUDA_VISIBLE_DEVICES"

EXTENSION = "tokenshift.analysis.vllm_engine.worker_extension.DrainExtension"

SCORED_TOKENS = 8192
"""Tokens that an engine for scoring reads in a step, or those of the longest text."""

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

WRONG_ON_CPU = ("Lfm2ForCausalLM", "Lfm2MoeForCausalLM")
"""Architectures whose layers hand queries of three dimensions to the rotary kernel of vLLM's build for CPUs, which
turns them by wrong angles: vLLM with one such model differs from `transformers` there too."""


@dataclass(frozen=True)
class EngineModel:
    """A whole model as vLLM loads it.

    Attributes:
        path: folder or hub name.
        revision: branch, tag or commit of a hub model.
        config: the model's config.
        trust_remote_code: whether code that comes with the model may run.
    """

    path: str
    revision: str | None
    config: Any
    trust_remote_code: bool = False

    @property
    def architecture(self) -> str:
        """The name under which vLLM serves the model."""
        names = getattr(self.config, "architectures", None) or ("unknown",)
        return str(names[0])


@dataclass(frozen=True)
class EngineOptions:
    """Options of vLLM.

    Attributes:
        dtype: of weights and caches; of the RL model's files when `auto`.
        tensor_parallel_size: devices that share a model.
        memory_share: share of each device's memory that vLLM takes, in (0, 1]; vLLM's own when None.
        longest: tokens of the longest prompt and its completion together; what the models read when None.
        runner: `v1` or `v2`, vLLM's model runners; vLLM's choice when None.
        scores: whether texts are scored, for which whole prompts are read in one step, without cached prefixes.
        eager: whether models run without compilation.
        more: further arguments of `vllm.LLM`.

    Raises:
        ValueError: for numbers out of range.
    """

    dtype: str = "auto"
    tensor_parallel_size: int = 1
    memory_share: float | None = None
    longest: int | None = None
    runner: str | None = None
    eager: bool = False
    scores: bool = False
    more: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.tensor_parallel_size < 1:
            raise ValueError(f"vllm_tensor_parallel_size={self.tensor_parallel_size} must be at least 1.")
        if self.memory_share is not None and not 0 < self.memory_share <= 1:
            raise ValueError(f"vllm_gpu_memory_utilization={self.memory_share} must lie in (0, 1].")
        if self.longest is not None and self.longest < 1:
            raise ValueError(f"vllm_max_model_length={self.longest} must be at least 1.")


@dataclass(frozen=True)
class StepRequest:
    """A request for a response whose tokens a step function chooses.

    Attributes:
        request: the prompt, and the row that the random numbers belong to.
        step: the step function, `module:function`.
        settings: what the step function is told.
        max_new_tokens: tokens of the longest completion, those of `begun` included.
        begun: the first tokens of the completion, which are there already.
        replaced_before: replacements among these.
    """

    request: Request
    step: str
    settings: str
    max_new_tokens: int
    begun: Sequence[int] = ()
    replaced_before: int = 0


@dataclass(frozen=True)
class StepResponse:
    """A completion.

    Attributes:
        completion_ids: its token ids, `begun` and the end token included.
        record: what the step function kept of each token that was decoded, lists by name.
    """

    completion_ids: list[int]
    record: dict[str, list[Any]]


class VLLMEngine:
    """A vLLM engine with one model, or with a base and an RL model side by side.

    Args:
        model: the model; of a pair, the RL model.
        base: the base of a pair; None for one model.
        ends: token ids that end a completion; no others do, whatever the model's files name.
        options: how vLLM runs.

    Attributes:
        facts: the version of vLLM and the model runner, for metadata.

    Raises:
        ValueError: if vLLM is missing or of another version, for architectures that the engine does not serve, for too
            little memory, or if vLLM does not start.
    """

    def __init__(
        self, model: EngineModel, base: EngineModel | None, ends: set[int], options: EngineOptions | None = None
    ) -> None:
        self._options = options = options or EngineOptions()
        installed = check_installed()
        runner = chosen_runner(options.runner)
        check_served(model, base)
        check_memory([part for part in (base, model) if part is not None], options)
        self.facts = {"vllm": installed, "vllm_runner": runner}
        self._ends = ends
        from tokenshift.analysis.vllm_engine.processors import PROCESSORS

        settings: dict[str, Any] = {
            "model": model.path,
            "revision": model.revision,
            "tokenizer": model.path,
            "tokenizer_revision": model.revision,
            "skip_tokenizer_init": True,
            "trust_remote_code": model.trust_remote_code,
            "dtype": dtype_of(model, options.dtype),
            "tensor_parallel_size": options.tensor_parallel_size,
            "enforce_eager": options.eager,
            "max_model_len": options.longest,
            "generation_config": "vllm",  # of the model's folder vLLM would take a generation config's settings
            "logits_processors": [PROCESSORS[runner]],
            "worker_extension_cls": EXTENSION,
            "hf_overrides": _overrides(model, base),
            "enable_batch_sharded_sampling": False,  # each process would have the logits of some rows alone
            **(_for_scoring(options) if options.scores else {}),
            **({} if options.memory_share is None else {"gpu_memory_utilization": options.memory_share}),
            **options.more,
        }
        self._llm = _start(settings, runner, options.tensor_parallel_size)
        try:
            _write_a_little(self._llm)
        except Exception as error:  # whatever is raised where a kernel is missing
            self.close()
            reason = " ".join(str(error).split()).rstrip(".")
            raise ValueError(
                f"engine='vllm' does not serve {model.path!r}: vLLM starts with {model.architecture} and cannot write "
                f"with it here: {type(error).__name__}: {reason}; use engine='transformers'."
            ) from error

    def __call__(self, requests: Sequence[StepRequest]) -> list[StepResponse]:
        """A response to each request; vLLM batches them itself.

        Raises:
            ValueError: for a request that leaves no room for a token.
        """
        from vllm import SamplingParams

        going = [index for index, request in enumerate(requests) if len(request.begun) < request.max_new_tokens]
        prompts = [
            {"prompt_token_ids": [*requests[index].request.prompt_ids, *requests[index].begun]} for index in going
        ]
        params = [
            SamplingParams(
                temperature=0.0,
                max_tokens=requests[index].max_new_tokens - len(requests[index].begun),
                ignore_eos=True,  # the model's own end tokens are among `ends`, or are not to end anything
                stop_token_ids=sorted(self._ends),
                detokenize=False,
                extra_args=RowRequest(
                    index,
                    requests[index].request.row,
                    len(requests[index].begun),
                    requests[index].step,
                    requests[index].settings,
                    requests[index].replaced_before,
                ).argument,
            )
            for index in going
        ]
        outputs = self._llm.generate(prompts, params, use_tqdm=False) if going else []
        completions = [list(request.begun) for request in requests]
        for index, output in zip(going, outputs, strict=True):
            completions[index] += output.outputs[0].token_ids
        records = self._records(requests, completions)
        return [StepResponse(*both) for both in zip(completions, records, strict=True)]

    def _records(
        self, requests: Sequence[StepRequest], completions: Sequence[Sequence[int]]
    ) -> list[dict[str, list[Any]]]:
        """The values that the step function kept for each response's tokens, in their order."""
        drained = [part for part in self._llm.collective_rpc("tokenshift_drain") if part["keys"]]
        records: list[dict[str, list[Any]]] = [{} for _ in requests]
        if not drained:
            return records
        part = drained[0]  # each process of a model decides the same
        keys, positions = part.pop("keys"), part.pop("positions")
        for name in part:
            for index, request in enumerate(requests):
                records[index][name] = [None] * (len(completions[index]) - len(request.begun))
        for name, values in part.items():
            for key, position, value in zip(keys, positions, values, strict=True):
                slot = position - len(requests[key].begun)
                if slot < len(records[key][name]):  # tokens after the end are dropped
                    records[key][name][slot] = value
        if any(None in values for record in records for values in record.values()):
            raise ValueError(f"vLLM {self.facts['vllm']} has moved: it took tokens that nothing is known of.")
        return records

    def score(
        self, texts: Sequence[ScoredText], function: str, settings: str, vocabulary: int
    ) -> list[dict[str, list[Any]]]:
        """Apply a function to both policies' logits along texts, which are read as prompts.

        Args:
            texts: the texts; the engine must have been started with `scores`.
            function: `module:function`, as of `PrefillScorer`.
            settings: what the function is told.
            vocabulary: tokens of the larger LM head.

        Raises:
            ValueError: if a text was not read whole in one step.
        """
        from vllm import SamplingParams

        if not texts:
            return []
        wanted = [(text.read, text.followed) for text in texts]
        self._llm.collective_rpc("tokenshift_score", args=(function, settings, wanted, vocabulary))
        params = SamplingParams(temperature=0.0, max_tokens=1, detokenize=False)
        self._llm.generate([{"prompt_token_ids": text.read} for text in texts], params, use_tqdm=False)
        replies: list[list[tuple[int, dict[str, list[Any]]]]] = self._llm.collective_rpc("tokenshift_scores")
        most = max(replies, key=len)
        numbers = dict(most)
        if missing := [index for index in range(len(texts)) if index not in numbers]:
            raise ValueError(
                f"{len(missing)} of {len(texts)} texts were not read whole in one step, the first with "
                f"{len(texts[missing[0]].read)} tokens: the engine must be started for scoring."
            )
        return [numbers[index] for index in range(len(texts))]

    def take_weights(self, folder: Path) -> None:
        """Take other weights of the engine's model, instead of those that it has; what was cached is forgotten.

        On a CPU the engine must run without compilation: compiled code keeps the first weights.

        Args:
            folder: a folder of the model, as `save_pretrained` leaves it, which every process of the engine reads.
        """
        self._llm.collective_rpc("tokenshift_take_weights", args=(str(folder),))
        self._llm.reset_prefix_cache()

    def close(self) -> None:
        """End the engine's processes."""
        self._llm.llm_engine.engine_core.shutdown()

    def __del__(self) -> None:
        try:  # noqa: SIM105  # where Python is ending, `contextlib` is gone already
            self.close()
        except Exception:  # it did not start
            pass


def check_served(model: EngineModel, base: EngineModel | None) -> None:
    """Refuse models that the engine cannot hold.

    Raises:
        ValueError: for an architecture that vLLM does not serve, cannot import or computes wrongly, or that is no
            decoder-only model of text, or for two models of different architectures.
    """
    from vllm import ModelRegistry
    from vllm.platforms import current_platform

    for part in (model, base):
        if part is None:
            continue
        if part.architecture not in ModelRegistry.models:
            raise ValueError(
                f"engine='vllm' does not serve {part.path!r}: its architecture {part.architecture} is none of vLLM's; "
                "use engine='transformers'."
            )
        if current_platform.is_cpu() and part.architecture in WRONG_ON_CPU:
            raise ValueError(
                f"engine='vllm' does not serve {part.path!r} on a CPU: vLLM's build for CPUs computes wrong "
                f"positions for {part.architecture}; use engine='transformers'."
            )
        facts = ModelRegistry._try_inspect_model_cls(part.architecture)
        if facts is None:
            raise ValueError(
                f"engine='vllm' does not serve {part.path!r}: vLLM cannot import {part.architecture} here, for the "
                "reason that its log names; use engine='transformers'."
            )
        if base is not None and (not facts.is_text_generation_model or facts.supports_multimodal):
            raise ValueError(
                f"engine='vllm' does not serve {part.path!r}: {part.architecture} is no decoder-only model of text; "
                "use engine='transformers'."
            )
    if base is not None and base.architecture != model.architecture:
        raise ValueError(
            f"engine='vllm' holds two models of one architecture; {base.path!r} is a {base.architecture} and "
            f"{model.path!r} a {model.architecture}: use engine='transformers'."
        )


def dtype_of(model: EngineModel, dtype: str) -> str:
    """The dtype that a model has in an engine: its own where it is `auto`, whereas vLLM would halve float32."""
    stored = getattr(model.config, "dtype", None)
    return dtype if dtype != "auto" or stored is None else str(stored).removeprefix("torch.")


def weight_bytes(model: EngineModel, dtype: str) -> int | None:
    """Bytes of a local model's weights in a dtype; None where its files are not there to be looked at."""
    folder = Path(model.path)
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    if not files:
        return None
    stored = str(getattr(model.config, "dtype", None) or "float32").removeprefix("torch.")
    ratio = DTYPE_BYTES.get(dtype, DTYPE_BYTES.get(stored, 4)) / DTYPE_BYTES.get(stored, 4)
    quantised = getattr(model.config, "quantization_config", None) is not None
    return int(sum(file.stat().st_size for file in files) * (1 if quantised else ratio))


def check_memory(models: Sequence[EngineModel], options: EngineOptions) -> None:
    """Refuse models whose weights alone are more than the memory that vLLM is given.

    Raises:
        ValueError: with the memory that is needed and what is available.
    """
    sizes = [weight_bytes(model, options.dtype) for model in models]
    if any(size is None for size in sizes):
        return
    needed = sum(size for size in sizes if size is not None) / options.tensor_parallel_size
    share = 0.9 if options.memory_share is None else options.memory_share
    if torch.cuda.is_available():
        available, where = share * torch.cuda.get_device_properties(0).total_memory, "of each GPU"
    else:
        available, where = float(psutil.virtual_memory().available), "free in main memory"
    if needed > available:
        raise ValueError(
            f"The weights of {len(models)} model(s) take {needed / 2**30:.1f} GiB for each device and "
            f"{available / 2**30:.1f} GiB are {where}: raise vllm_tensor_parallel_size, choose a shorter dtype, or "
            "use engine='transformers'."
        )


def _for_scoring(options: EngineOptions) -> dict[str, Any]:
    """Arguments of an engine that reads each prompt whole, in a forward pass that Python sees."""
    graphs = torch.cuda.is_available() and not options.eager
    return {
        "enable_prefix_caching": False,
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(SCORED_TOKENS, options.longest or 0),
        **({"compilation_config": {"cudagraph_mode": "PIECEWISE"}} if graphs else {}),
    }


def _overrides(model: EngineModel, base: EngineModel | None) -> dict[str, Any]:
    """Settings of the model's config: logits are made in float32, and the architecture is that of a pair."""
    overrides: dict[str, Any] = {"head_dtype": "float32"}
    if base is not None:
        overrides["architectures"] = [pair_name(model.architecture)]
        overrides["tokenshift_pair"] = {"path": base.path, "revision": base.revision}
    return overrides


def _start(settings: dict[str, Any], runner: str, devices: int) -> Any:
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ[RUNNER_VARIABLE] = str(int(runner == "v2"))  # vLLM reads it whenever it asks which runner is in use
    register()  # in this process; others find it by the entry point
    from vllm import LLM

    with _own_environment(devices):
        try:
            return LLM(**settings)
        except (ValueError, RuntimeError, AssertionError, OSError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"vLLM does not start with {settings['model']!r}: {reason}") from error


def _write_a_little(llm: Any) -> None:
    """Write two tokens: vLLM's own warm-up leaves layers with a state out, whose kernels a device may lack."""
    from vllm import SamplingParams

    if llm.llm_engine.model_config.max_model_len > 1:
        params = SamplingParams(temperature=0.0, max_tokens=2, ignore_eos=True, detokenize=False)
        llm.generate([{"prompt_token_ids": [0]}], params, use_tqdm=False)


@contextmanager
def _own_environment(devices: int) -> Iterator[None]:
    """The environment in which an engine's processes start: without the launch's variables, and with own GPUs."""
    state = PartialState()
    changed: dict[str, str | None] = dict.fromkeys(LAUNCH_VARIABLES)
    changed[PARENT_VARIABLE] = str(os.getpid())
    if torch.cuda.is_available() and state.num_processes > 1:
        changed[DEVICES_VARIABLE] = own_devices(state.local_process_index, devices, os.environ.get(DEVICES_VARIABLE))
    before = {name: os.environ.get(name) for name in changed}
    _set_environment(changed)
    try:
        yield
    finally:
        _set_environment(before)


def own_devices(process: int, devices: int, visible: str | None) -> str:
    """The GPUs of a process's engine, for `CUDA_VISIBLE_DEVICES`.

    Args:
        process: index of the process on its machine.
        devices: GPUs for each engine.
        visible: the GPUs of all processes, as in `CUDA_VISIBLE_DEVICES`; all of the machine's when None.

    Raises:
        ValueError: if there are too few.
    """
    names = visible.split(",") if visible else [str(index) for index in range(torch.cuda.device_count())]
    chosen = names[process * devices : (process + 1) * devices]
    if len(chosen) < devices:
        raise ValueError(
            f"Process {process} of this machine needs GPUs {process * devices} to {(process + 1) * devices - 1} for "
            f"its engine, and there are {len(names)}: start fewer processes, or lower vllm_tensor_parallel_size."
        )
    return ",".join(chosen)


def _set_environment(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
