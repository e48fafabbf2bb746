"""`--dry_run`: the plan of a training, from its arguments, the model's config.json and the accelerate config alone."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from transformers import AutoConfig
from trl import ModelConfig, get_peft_config

from tokenshift.recipes.command_line.parser import parse_into
from tokenshift.recipes.command_line.plan_view import H100_TFLOPS, peak_lines, show_memory, time_words, verdict_lines
from tokenshift.recipes.command_line.planned_launch import planned_launch
from tokenshift.recipes.inputs.model_files import check_causal_config, refusal
from tokenshift.recipes.inputs.models import resolve_model
from tokenshift.recipes.jobs.training.arguments import DEFAULT_CONFIG, WITHOUT, RecipeArguments
from tokenshift.trainer import DivergenceGRPOConfig
from tokenshift.trainer.plan.launch import Launch
from tokenshift.trainer.plan.memory import Lengths
from tokenshift.trainer.plan.model_shape import model_shape
from tokenshift.trainer.plan.training_plan import TrainingPlan, changes, training_plan
from tokenshift.trainer.precision import AUTOCAST
from tokenshift.trainer.reference_cache import GIB

PROMPT_TOKENS = 512
"""Tokens of the longest prompt where neither the plan's options nor vLLM's length say."""


@dataclass
class PlannedTraining:
    """A plan, and what it was made of."""

    plan: TrainingPlan
    script_args: RecipeArguments
    args: DivergenceGRPOConfig
    model_args: ModelConfig
    parameters: int


def prepare_plan(arguments: list[str]) -> PlannedTraining:
    """Parse the arguments as for the planned number of processes, and plan; no data, tokenizer or weight is loaded.

    Raises:
        ValueError: for whatever is wrong, in one line.
    """
    launch = _launch(arguments)
    processes = launch.processes if launch is not None else 1

    class PlannedConfig(DivergenceGRPOConfig):
        world_size = property(lambda self: processes)  # from which batch sizes follow

    types = (RecipeArguments, PlannedConfig, ModelConfig)
    script_args, args, model_args = parse_into(types, arguments, default=DEFAULT_CONFIG, unless=WITHOUT)
    launch = launch or Launch(on_cpu=args.use_cpu)
    for name in ("load_in_4bit", "load_in_8bit"):
        if getattr(model_args, name, False):
            raise ValueError(f"{name} cannot be planned: the size of quantized weights is their library's to choose.")
    name = str(model_args.model_name_or_path)
    path = resolve_model(name)
    try:
        config = AutoConfig.from_pretrained(
            path, revision=model_args.model_revision, trust_remote_code=args.trust_remote_code
        )
    except Exception as error:  # whatever the file makes transformers raise
        raise refusal("model_name_or_path", name, error) from error
    check_causal_config("model_name_or_path", name, config)
    dtype = getattr(torch, model_args.dtype) if model_args.dtype not in (None, "auto") else torch.float32
    half = "bf16" if args.bf16 else "fp16" if args.fp16 else "no"
    casts = AUTOCAST.get(half) if not launch.is_deepspeed else None
    peft_config = get_peft_config(model_args)
    shape = model_shape(config, dtype, autocast=casts, peft_config=peft_config)
    plan = training_plan(
        shape,
        args,
        launch,
        _lengths(script_args, args),
        gpu=int(script_args.plan_gpu_gib * GIB),
        flops=(script_args.plan_tflops or H100_TFLOPS) * 1e12,
        utilization=script_args.plan_utilization,
        peft=peft_config is not None,
    )
    return PlannedTraining(plan, script_args, args, model_args, shape.parameters)


def _launch(arguments: list[str]) -> Launch | None:
    """The launch that `--plan_launch`, `--plan_processes` and `--plan_machines` name; None without the first.

    Raises:
        ValueError: if the processes are given without it, or are no whole number.
    """
    given: dict[str, str] = {}
    words = [part for word in arguments for part in (word.split("=", 1) if word.startswith("--") else [word])]
    for option, value in pairwise(words):
        if option.startswith("--plan_"):
            given[option.removeprefix("--plan_")] = value
    for name in ("processes", "machines"):
        if "launch" in given and name in given and not given[name].isdecimal():
            raise ValueError(f"plan_{name}={given[name]!r} must be a whole number of at least 1.")
    counts = {name: int(given[name]) for name in ("processes", "machines") if given.get(name, "").isdecimal()}
    return planned_launch(given.get("launch"), **counts)


def _lengths(script_args: RecipeArguments, args: DivergenceGRPOConfig) -> Lengths:
    """Lengths of texts: as given, else the longest that the settings allow."""
    completion = args.max_completion_length or 256
    model_length = args.vllm_max_model_length if args.use_vllm else None
    prompt = script_args.plan_prompt_tokens or (model_length - completion if model_length else PROMPT_TOKENS)
    return Lengths(max(prompt, 1), completion, min(script_args.plan_completion_tokens or completion, completion))


def show_plan(job: PlannedTraining) -> None:
    """Print the plan: memory by part and phase, tokens, time, what runs out first and what to change."""
    plan, args = job.plan, job.args
    show_memory(plan, "process" if plan.launch.on_cpu else "GPU")
    rate = job.script_args.plan_tflops, job.script_args.plan_utilization
    time = time_words(plan.update_flops, *rate, on_cpu=plan.launch.on_cpu)
    prompt, completion, mean = plan.lengths.prompt, plan.lengths.completion, plan.lengths.mean_completion
    rows = [
        f"{job.model_args.model_name_or_path}, {job.parameters / 1e6:,.0f}M parameters; {plan.launch}",
        f"lengths: prompts of at most {prompt} tokens, completions of at most {completion}, {mean} on average",
        f"generation: {plan.prompts} prompts x {args.num_generations} = {plan.completions} completions, at most "
        f"{plan.tokens:,} tokens; {plan.updates_per_generation:g} updates",
        f"update: {plan.update_flops:.2e} operations a process, {time}",
    ]
    for row in (*rows, *verdict(plan, args)):
        print(row)  # lines to copy


def verdict(plan: TrainingPlan, args: Any) -> list[str]:
    """Lines on which memory runs out first, and what to change."""
    size = (plan.capacity or 0) / GIB
    return [
        *peak_lines(plan, plan.launch),
        *verdict_lines(plan, f"a GPU of {size:g} GiB", changes(plan, args)),
    ]
