"""Arguments of every recipe that samples responses and judges them, and the policies that they describe."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils.memory import clear_device_cache

from tokenshift.analysis.sampling.correctness import check_correct_threshold
from tokenshift.analysis.sampling.generators import Generator, Sampling, TransformersGenerator, VLLMGenerator
from tokenshift.analysis.sampling.token_ids import context_length, context_reason
from tokenshift.analysis.storage.file_names import file_name
from tokenshift.analysis.storage.user_paths import user_path
from tokenshift.analysis.storage.yaml_text import UnreadableYamlError, parse_yaml
from tokenshift.analysis.thresholds import CORRECT
from tokenshift.recipes.inputs.device_maps import read_device_map
from tokenshift.recipes.inputs.engines import VLLM, EngineArguments, check_engine_arguments, engine_starter
from tokenshift.recipes.inputs.installed import require_vllm
from tokenshift.recipes.inputs.models import ModelSource, model_ends
from tokenshift.recipes.inputs.plan_arguments import PlanArguments
from tokenshift.recipes.inputs.problem_arguments import PromptArguments
from tokenshift.recipes.inputs.verification_arguments import VerificationArguments
from tokenshift.trainer.resume.launch_check import check_launch
from tokenshift.trainer.resume.process_group import DDP_TIMEOUT, meet, start_process_group
from tokenshift.trainer.resume.same_settings import check_same_settings, settings_of

LONGEST_RESPONSE = 1024
"""Limit on the tokens of a response where neither the user nor the model sets one."""

LONGEST_TIMEOUT = 10**7
"""Limit on the seconds that a process waits for another: 115 days, which C++ clocks can count."""

DTYPES = ("auto", "float32", "bfloat16", "float16")
"""Names of the dtypes that models are loaded with."""


@dataclass
class SamplingArguments(EngineArguments, VerificationArguments, PlanArguments, PromptArguments):
    """
    How many problems, how they are answered and judged, and where results go.

    Parameters:
        size (`int`, *optional*):
            How many problems.
        reward_func (`str`), correct_threshold (`float`):
            Judges responses; correct are those whose reward is at least the threshold.
        samples (`int`), temperature, top_p, max_new_tokens, seed:
            Responses per problem, and how they are sampled.
        batch_size (`int`):
            Responses sampled at once.
        dtype, attn_implementation, use_vllm:
            How models are loaded and responses sampled.
        device_map (`str` or `dict[str, int | str]`, *optional*):
            How a model is spread over the devices that this process sees: `auto`, `balanced`, `balanced_low_0`,
            `sequential`, or a mapping of its parts to devices, as in transformers.
        offload_folder (`str`, *optional*):
            Where weights go that `device_map` leaves on the disk and that the model's own files do not have as they
            are: of pickled weights, and of most mixtures of experts.
        trust_remote_code (`bool`):
            Whether code that comes with the models may run; without it, a model that needs such code is refused.
        chat_template_kwargs (`dict[str, Any]`, *optional*):
            Arguments of the chat template, as in a training.
        ddp_timeout (`float`):
            Seconds that a process waits for the others, where several share the work, before it ends with an error.
        output_dir (`str`), overwrite (`bool`):
            Where results go; an earlier analysis there is continued if its settings are the same.
    """

    size: int | None = field(default=None, metadata={"help": "Problems; all, or 256 of made ones, when not given."})
    reward_func: str = field(default="accuracy_reward", metadata={"help": "Judge: its name or a dotted path."})
    correct_threshold: float = field(default=CORRECT, metadata={"help": "Lowest reward of a correct response."})
    samples: int = field(default=1, metadata={"help": "Responses per problem."})
    temperature: float = field(default=1.0, metadata={"help": "Sampling temperature."})
    top_p: float = field(default=0.7, metadata={"help": "Nucleus of sampling; next to 0 is greedy."})
    max_new_tokens: int | None = field(
        default=None,
        metadata={"help": "Longest response, in tokens; at most 1024, and what the model reads, if not given."},
    )
    seed: int = field(default=0, metadata={"help": "Seed of the sampled responses."})
    batch_size: int = field(default=32, metadata={"help": "Responses sampled at once by each process."})
    dtype: str = field(default="auto", metadata={"help": "auto, float32, bfloat16 or float16."})
    attn_implementation: str | None = field(default=None, metadata={"help": "As in transformers."})
    device_map: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "Spread each model: auto, balanced, sequential, or a mapping; as in transformers."},
    )
    offload_folder: str | None = field(
        default=None, metadata={"help": "For weights on disk that the model's own files do not have as they are."}
    )
    use_vllm: bool = field(default=False, metadata={"help": "Sample by vLLM, with draws of its own."})
    trust_remote_code: bool = field(
        default=False, metadata={"help": "Run the code that comes with the models, which can do anything here."}
    )
    chat_template_kwargs: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Arguments of the chat template, e.g. '{\"enable_thinking\": false}'."}
    )
    ddp_timeout: float = field(
        default=DDP_TIMEOUT, metadata={"help": "Seconds that a process waits for the others before it ends."}
    )
    output_dir: str = field(default="outputs/pocket/analysis", metadata={"help": "Where results go."})
    overwrite: bool = field(default=False, metadata={"help": "Delete what an earlier analysis left in output_dir."})

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("size", "samples", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1.")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype={self.dtype!r} is not known; choose auto, float32, bfloat16 or float16.")
        self.check_engine_name()
        if self.use_vllm and self.engine == VLLM:
            raise ValueError("use_vllm=True is vLLM with draws of its own, engine='vllm' has the project's; give one.")
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={self.max_new_tokens} must be at least 1.")
        if not 0 < self.ddp_timeout <= LONGEST_TIMEOUT:
            raise ValueError(f"ddp_timeout={self.ddp_timeout} must be positive, at most {LONGEST_TIMEOUT:,} seconds.")
        check_correct_threshold(self.correct_threshold)
        self.check_verification()
        _ = self.sampling  # the other numbers are checked there
        self.output_dir = str(user_path(self.output_dir, "output_dir"))
        self.device_map = read_device_map(self.device_map)
        given = self.chat_template_kwargs
        try:
            value = parse_yaml(given) if isinstance(given, str) else given
        except UnreadableYamlError:
            value = given
        if not isinstance(value, dict | None):
            raise ValueError(
                f"chat_template_kwargs={given!r} is no mapping of names to values, such as "
                "'{\"enable_thinking\": false}'."
            )
        self.chat_template_kwargs = value or None

    @property
    def template_kwargs(self) -> dict[str, Any] | None:
        """Arguments of the chat template."""
        assert not isinstance(self.chat_template_kwargs, str)  # it was read
        return self.chat_template_kwargs

    @property
    def sampling(self) -> Sampling:
        """The settings of sampling."""
        return Sampling(self.temperature, self.top_p, self.max_new_tokens or LONGEST_RESPONSE, self.seed)


def check_machine(args: SamplingArguments) -> PartialState:
    """Check that the launch and the installed libraries fit the arguments, and set up verification.

    Returns:
        The processes of this run.

    Raises:
        ValueError: if something does not fit.
    """
    state = start_process_group(args.ddp_timeout, cpu=not torch.accelerator.is_available())
    check_launch(state)
    meet()
    check_same_settings(settings_of(args))
    check_spread(args.device_map, state.num_processes)
    if args.use_vllm:
        require_vllm("use_vllm=True", "vllm")
    check_engine_arguments(args)
    args.configure_verification()
    return state


def check_spread(device_map: Any, processes: int) -> None:
    """Refuse models that are spread over devices by each of several processes.

    Raises:
        ValueError: in one line.
    """
    if device_map is not None and processes > 1:
        raise ValueError(
            f"device_map={device_map!r} spreads each model over the devices that one process sees, but "
            f"{processes} processes run; start one (python, not accelerate launch), or leave it out."
        )


def check_device_map(args: SamplingArguments, sources: Iterable[ModelSource]) -> None:
    """Refuse a `device_map` that does not fit one of the models, before any is loaded.

    Raises:
        ValueError: in one line.
    """
    if args.device_map is not None:
        for source in sources:
            source.fitted_map(args.device_map)


def ready_model(source: ModelSource, args: SamplingArguments) -> Any:
    """Load a model onto this process's device, or spread it as `device_map` says."""
    options: dict[str, Any] = {}
    if args.attn_implementation:
        options["attn_implementation"] = args.attn_implementation
    if args.device_map is not None:
        clear_device_cache(garbage_collection=True)  # a spread model holds itself by its hooks, used or not
        options["device_map"] = args.device_map
        if args.offload_folder is not None:  # one for each model: the names of their weights are the same
            options["offload_folder"] = user_path(args.offload_folder, "offload_folder") / file_name(source.name)
    return source.load(args.dtype, PartialState().device, **options)


def generator_maker(
    source: ModelSource, args: SamplingArguments, sampling: Sampling | None = None, longest: int | None = None
) -> Callable[[], Generator]:
    """A function that loads a model and returns a generator of its responses.

    Args:
        source: the model.
        args: the recipe's arguments.
        sampling: how responses are sampled; as the arguments say when None.
        longest: tokens of the longest prompt and its response, for which vLLM makes room; what the model reads when
            None.
    """
    chosen = sampling or args.sampling
    if args.use_vllm:
        if source.base is not None:
            raise ValueError(
                f"use_vllm=True cannot be with the adapter {source.name!r}: merge it into its base "
                "(merge_and_unload) and save the model, or leave use_vllm out."
            )
        options: dict[str, Any] = {"dtype": args.dtype, "trust_remote_code": source.trust_remote_code}
        if context_reason(source.config):  # where longer texts are allowed, vLLM has all read with their factors
            options["max_model_len"] = context_length(source.config)
        return lambda: VLLMGenerator(source.path, source.revision, chosen, model_ends(source), **options)
    if args.engine == VLLM:
        from tokenshift.analysis.vllm_engine.generator import EngineGenerator

        return lambda: EngineGenerator(engine_starter(args, args.dtype, source, longest=longest), chosen)
    return lambda: TransformersGenerator(ready_model(source, args), source.tokenizer, chosen)
