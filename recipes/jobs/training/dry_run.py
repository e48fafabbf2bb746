"""`--dry_run`: the plan of a training, from its arguments, the model's config.json and the accelerate config alone."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from rich.panel import Panel
from rich.table import Table
from transformers import AutoConfig
from trl import ModelConfig, get_peft_config

from tokenshift.recipes.command_line.config_files import launch_config
from tokenshift.recipes.command_line.console import console
from tokenshift.recipes.command_line.parser import parse_into
from tokenshift.recipes.inputs.model_files import check_causal_config, refusal
from tokenshift.recipes.inputs.models import resolve_model
from tokenshift.recipes.jobs.training.arguments import DEFAULT_CONFIG, WITHOUT, RecipeArguments
from tokenshift.trainer import DivergenceGRPOConfig
from tokenshift.trainer.plan.launch import Launch, read_launch
from tokenshift.trainer.plan.memory import PHASES, Lengths, largest_phase, peak
from tokenshift.trainer.plan.model_shape import model_shape
from tokenshift.trainer.plan.training_plan import TrainingPlan, changes, training_plan
from tokenshift.trainer.precision import AUTOCAST
from tokenshift.trainer.reference_cache import GIB

H100_TFLOPS = 989.0
"""Floating-point operations of an H100 in bfloat16, in 1e12 per second."""

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
        if name in given and "launch" not in given:
            raise ValueError(f"plan_{name} needs plan_launch, an accelerate config, for example --plan_launch zero3.")
        if name in given and (not given[name].isdecimal() or int(given[name]) < 1):
            raise ValueError(f"plan_{name}={given[name]!r} must be a whole number of at least 1.")
    if "launch" not in given:
        return None
    counts = {name: int(given[name]) for name in ("processes", "machines") if name in given}
    return read_launch(launch_config(given["launch"]), **counts)


def _lengths(script_args: RecipeArguments, args: DivergenceGRPOConfig) -> Lengths:
    """Lengths of texts: as given, else the longest that the settings allow."""
    completion = args.max_completion_length or 256
    model_length = args.vllm_max_model_length if args.use_vllm else None
    prompt = script_args.plan_prompt_tokens or (model_length - completion if model_length else PROMPT_TOKENS)
    return Lengths(max(prompt, 1), completion, min(script_args.plan_completion_tokens or completion, completion))


def show_plan(job: PlannedTraining) -> None:
    """Print the plan: memory by part and phase, tokens, time, what runs out first and what to change."""
    plan, args = job.plan, job.args
    table = Table(box=None, pad_edge=False)
    table.add_column("GiB per process" if plan.launch.on_cpu else "GiB per GPU", overflow="fold")
    for phase in PHASES:
        table.add_column(phase, justify="right")
    table.add_column("", overflow="fold", style="dim")

    def add(name: str, sizes: dict[str, int], note: str = "", style: str | None = None) -> None:
        shown = (f"{sizes[phase] / GIB:.2f}" if sizes[phase] else "" for phase in PHASES)
        table.add_row(name, *shown, note, style=style)

    for part in plan.parts:
        if not part.on_host:
            add(part.name, {phase: part.size if phase in part.phases else 0 for phase in PHASES}, part.note)
    add("together", {phase: peak(plan.parts, phase) for phase in PHASES}, style="bold")
    for part in plan.parts:
        if part.on_host:
            sizes = {phase: part.size if phase in part.phases else 0 for phase in PHASES}
            add(f"host: {part.name}", sizes, part.note)
    console.print(Panel(table, title="plan: nothing was loaded", title_align="left", border_style="cyan"))
    prompt, completion, mean = plan.lengths.prompt, plan.lengths.completion, plan.lengths.mean_completion
    rows = [
        f"{job.model_args.model_name_or_path}, {job.parameters / 1e6:,.0f}M parameters; {plan.launch}",
        f"lengths: prompts of at most {prompt} tokens, completions of at most {completion}, {mean} on average",
        f"generation: {plan.prompts} prompts x {args.num_generations} = {plan.completions} completions, at most "
        f"{plan.tokens:,} tokens; {plan.updates_per_generation:g} updates",
        f"update: {plan.update_flops:.2e} operations a process, {_time(job)}",
    ]
    for row in (*rows, *verdict(plan, args)):
        print(row)  # lines to copy


def verdict(plan: TrainingPlan, args: Any) -> list[str]:
    """Lines on which memory runs out first, and what to change."""
    phase = largest_phase(plan.parts)
    lines = [f"most memory: {plan.peak / GIB:.2f} GiB, in the phase {phase}"]
    if plan.launch.on_cpu and plan.launch.processes > 1:
        lines[0] += f" (all {plan.launch.processes} processes: {plan.launch.processes * plan.peak / GIB:.2f} GiB)"
    elif not plan.launch.on_cpu:
        local = plan.launch.processes // plan.launch.machines
        lines.append(f"host memory: {local * plan.host_peak / GIB:.2f} GiB a machine, beside what loading takes")
    if plan.gpu is not None:
        size = plan.gpu / GIB
        words = "fits" if plan.fits else f"does not fit: the phase {plan.tightest_phase} runs out first"
        lines.append(f"a GPU of {size:g} GiB: {words}")
    head = "to need less:" if plan.fits else "change:"
    return [*lines, *(f"{head} {line}" for line in changes(plan, args)[:3])]


def _time(job: PlannedTraining) -> str:
    """The time of an update, in words."""
    plan, given = job.plan, job.script_args.plan_tflops
    if given is None and plan.launch.on_cpu:
        return "give --plan_tflops for its time"
    taken = f"{plan.seconds:.3g} s" if plan.seconds < 120 else f"{plan.seconds / 60:.3g} min"
    rate = f"{job.script_args.plan_utilization:.0%} of {given or H100_TFLOPS:g} TFLOP/s"
    return f"{taken} at {rate}, without sampling"
