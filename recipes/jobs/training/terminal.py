"""The output of the training recipe for a person: the plan before the training, and the summary after it."""

import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from rich.panel import Panel
from rich.table import Table

from tokenshift.analysis.secrets import hide_in_text
from tokenshift.analysis.storage.whole_file import write_whole
from tokenshift.recipes.command_line.console import console
from tokenshift.recipes.inputs.contents import path_content
from tokenshift.recipes.jobs.training.preparation import Preparation
from tokenshift.trainer import DivergenceGRPOConfig
from tokenshift.trainer.diagnosis.diagnosis import as_text, diagnose
from tokenshift.trainer.diagnosis.run_record import RunRecord
from tokenshift.trainer.model_card import made_section, public_name
from tokenshift.trainer.policy.heldout import HeldOutScore
from tokenshift.trainer.resume.launch_check import engine_name
from tokenshift.trainer.weighting.description import divergence_formula, variant_name, weighting_formula


def _two_columns() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    return table


def rollout_engine(args: DivergenceGRPOConfig) -> str:
    """The engine that samples the rollouts, and how the loss is corrected for its numbers, in words."""
    if not args.use_vllm:
        return "transformers"
    if not args.vllm_importance_sampling_correction:
        return f"vLLM ({args.vllm_mode}), no importance-sampling correction"
    low, high = args.vllm_importance_sampling_clip_min, args.vllm_importance_sampling_clip_max
    bounds = [f"{word} {value:g}" for word, value in (("from", low), ("up to", high)) if value is not None]
    return f"vLLM ({args.vllm_mode}), importance sampling by {args.vllm_importance_sampling_mode} {' '.join(bounds)}"


def _dynamic_sampling_plan(args: DivergenceGRPOConfig, rewards: list[str]) -> str:
    if not args.dynamic_sampling:
        return "off"
    return f"by {args.dynamic_sampling_metric or rewards[0]}, at most {args.dynamic_sampling_max_rounds} rounds"


def _probe_plan(args: DivergenceGRPOConfig) -> str:
    if args.probe_steps is None:
        return "none"
    every = f", every {args.probe_steps} updates" if args.probe_steps else ""
    return f"{args.probe_size} problems at the start{every}, at saves and at the end"


def show_training_plan(job: Preparation) -> None:
    """Show on one screen the model, the data, the settings and the output folder of the training."""
    args, script_args, model_args = job.args, job.script_args, job.model_args
    processes = args.world_size
    table = _two_columns()
    effective = args.per_device_train_batch_size * args.gradient_accumulation_steps * processes
    generation = args.generation_batch_size or 0
    length = f"{args.max_steps} updates" if args.max_steps > 0 else f"{args.num_train_epochs:g} epochs"
    rows = {
        "model": f"{model_args.model_name_or_path}{' + LoRA' if model_args.use_peft else ''}",
        "data": f"{script_args.dataset_name}, {len(job.train)} training and {len(job.held_out)} held-out problems",
        "rewards": ", ".join(script_args.reward_funcs),
        "variant": variant_name(args),
        "weights": weighting_formula(args),
        "divergence": divergence_formula(args) or "not looked at",
        "loss": f"{args.loss_type}, clip {args.epsilon:g} / {args.epsilon_high or args.epsilon:g}, beta {args.beta:g}",
        "length": f"{length}, learning rate {args.learning_rate:g}",
        "generation": (
            f"{generation // (args.num_generations or 1)} prompts x {args.num_generations} completions of at most "
            f"{args.max_completion_length} tokens, temperature {args.temperature:g}"
        ),
        "rollouts": rollout_engine(args),
        "dynamic sampling": _dynamic_sampling_plan(args, script_args.reward_funcs),
        "updates per generation": f"{args.updates_per_generation:g}",
        "shift probe": _probe_plan(args),
        "effective batch": f"{effective} completions an update",
        "processes": f"{processes} ({engine_name()})",
        "output": str(args.output_dir),
    }
    if args.resume_from_checkpoint is not None:
        rows["resumes from"] = str(args.resume_from_checkpoint)
    for name, value in rows.items():
        table.add_row(name, hide_in_text(value))
    console.print(Panel(table, title="tokenshift: divergence-weighted GRPO", title_align="left", border_style="cyan"))


def card_section(job: Preparation, before: HeldOutScore | None, after: HeldOutScore | None, updates: int) -> str:
    """The model card's section on how the model was made.

    Args:
        job: The training.
        before, after: Held-out scores of the base and the trained model.
        updates: Optimizer updates made.
    """
    args, script_args = job.args, job.script_args
    score = f"held-out {script_args.reward_funcs[0]}"
    base = public_name(str(job.model_args.model_name_or_path))
    content = path_content(job.model_path, None)
    return made_section(
        {
            "base model": f"`{base}`" + (f" (content {content})" if content else ""),
            "data": f"`{public_name(script_args.dataset_name)}`, {len(job.train)} problems",
            "rewards": ", ".join(f"`{name}`" for name in script_args.reward_funcs),
            f"{score}, before": before,
            f"{score}, after": after,
            "updates": f"{updates}, learning rate {args.learning_rate:g}, seed {args.seed}",
            "trained weights": "LoRA" if job.model_args.use_peft else "all",
            "made by": f"`tokenshift train` {version('tokenshift')}; every setting is in the run's `config.yaml`",
        }
    )


@dataclass
class TrainingSummary:
    """The outcome of a run, saved as `summary.json`.

    Attributes:
        variant: the name of the weighting, with its control.
        weighting: the formula of the weighting, with numbers.
        divergence: the name and the formula of the divergence; None if none was looked at.
        updates: optimizer updates made, those before a resume included.
        stopped_early: whether a signal ended it.
        before, after: held-out scores of the base and the trained model.
        train_seconds: wall-clock seconds of training in this launch, without evaluation.
        rollouts: what sampled the rollouts, and how the loss was corrected for it.
        model, curves, shift, wandb: where the trained model, the figure, the shift probe's tables and figures and the
            W&B run are.
    """

    variant: str
    weighting: str
    divergence: str | None
    updates: int
    stopped_early: bool
    before: HeldOutScore | None
    after: HeldOutScore | None
    train_seconds: float
    rollouts: str
    model: str
    curves: str | None
    shift: str | None
    wandb: str

    def save(self, path: Path) -> None:
        """Write as JSON, whole or not at all."""
        write_whole(path, json.dumps(asdict(self), indent=2) + "\n")

    def show(self, score_name: str) -> None:
        """Print it as a panel."""
        table = _two_columns()
        table.add_row(f"held-out {score_name}, before", str(self.before) if self.before else "not measured")
        table.add_row(f"held-out {score_name}, after", str(self.after) if self.after else "not measured")
        table.add_row("updates", f"{self.updates} in {self.train_seconds:.0f} s of training")
        table.add_row("model", self.model)
        if self.curves is not None:
            table.add_row("curves", self.curves)
        if self.shift is not None:
            table.add_row("shift probe", self.shift)
        if self.stopped_early:
            table.add_row("to go on", "the same command with --resume_from_checkpoint true")
        title = "stopped early" if self.stopped_early else "done"
        console.print(Panel(table, title=title, title_align="left", border_style="green", subtitle="95 % intervals"))
        print(f"W&B: {self.wandb}")  # outside the panel, which would break a command to copy


def show_diagnosis(run: RunRecord) -> None:
    """Say what looks wrong in a training that has ended; nothing is said where nothing does. It never raises."""
    try:
        findings = diagnose(run)
        if findings:
            print(f"What looks wrong (tokenshift doctor {run.folder} shows it again):")
            print(hide_in_text(as_text(run, findings)), flush=True)
    except Exception as error:  # a run that has ended well must not fail by what is said of it
        print(f"The run could not be looked at for signs of trouble: {type(error).__name__}: {error}")
