"""Train a language model by GRPO with divergence-weighted advantages.

    python recipes/grpo_divweighted.py                                     # the embedded example
    python recipes/grpo_divweighted.py --config recipes/configs/smollm2_arithmetic.yaml
    python recipes/grpo_divweighted.py --model_name_or_path org/model --dataset_name problems.jsonl \\
        --steps_per_generation 16 --output_dir outputs/mine
    accelerate launch --config_file accelerate_configs/ddp.yaml recipes/grpo_divweighted.py \\
        --config X.yaml --field value

Prints a plan, scores held-out problems before and after, and leaves in `output_dir`: the model, checkpoints,
`summary.json`, `log_history.json` with all that was logged, `training_curves.png`, the shift probe's tables and
figures in `shift/`, and the W&B run.
`--resume_from_checkpoint true` goes on from the last checkpoint; Ctrl-C ends with one. A user's mistake ends in one
line, before a model is loaded. `--dry_run` prints memory, tokens and time of the training, and loads nothing.
"""

from tokenshift.recipes.command_line.start import start_script

if __name__ == "__main__":
    start_script(__file__)  # answers --help and wrong arguments before the imports below, which take seconds

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from transformers import PrinterCallback, ProgressCallback
from trl import get_peft_config, get_quantization_config

from tokenshift.analysis.figures.kit import save_figure
from tokenshift.analysis.figures.training_curves import training_curves
from tokenshift.analysis.storage.whole_file import write_whole
from tokenshift.recipes.command_line.console import console
from tokenshift.recipes.command_line.dry_run import is_dry_run
from tokenshift.recipes.command_line.entry import run_guarded
from tokenshift.recipes.command_line.products import BASE_SCORE_FILE, LOG_HISTORY_FILE, MODEL_DIR, SUMMARY_FILE
from tokenshift.recipes.command_line.wandb_run import finish_wandb, start_wandb
from tokenshift.recipes.inputs.model_files import mistakes_of_loading
from tokenshift.recipes.inputs.problems import MADE
from tokenshift.recipes.jobs.training.dry_run import prepare_plan, show_plan
from tokenshift.recipes.jobs.training.preparation import Preparation, prepare, prepare_training_output
from tokenshift.recipes.jobs.training.progress import LineProgress, PanelProgress
from tokenshift.recipes.jobs.training.terminal import (
    TrainingSummary,
    card_section,
    rollout_engine,
    show_diagnosis,
    show_training_plan,
)
from tokenshift.trainer import DivergenceGRPOTrainer
from tokenshift.trainer.diagnosis.run_record import RunRecord
from tokenshift.trainer.model_card import CARD_FILE
from tokenshift.trainer.policy.heldout import BaseScoreCallback, heldout_score
from tokenshift.trainer.resume.checkpoints import save_whole_model
from tokenshift.trainer.resume.interrupt import CheckpointOnSignal
from tokenshift.trainer.resume.launch_check import check_launch
from tokenshift.trainer.tracking.run_names import missing_names, run_names
from tokenshift.trainer.weighting.description import divergence_formula, variant_name, weighting_formula


def run(job: Preparation) -> None:
    """Train, score before and after, and leave the products in `output_dir`."""
    args, script_args, variant = job.args, job.script_args, variant_name(job.args)
    tracked = "wandb" in (args.report_to or ())
    if args.process_index == 0:
        show_training_plan(job)
    interrupt = CheckpointOnSignal()
    with mistakes_of_loading("model_name_or_path", str(job.model_args.model_name_or_path)):
        trainer = DivergenceGRPOTrainer(
            model=job.model_path,
            reward_funcs=job.rewards,
            args=args,
            train_dataset=job.train,
            eval_dataset=job.held_out if args.eval_strategy != "no" else None,
            quantization_config=get_quantization_config(job.model_args),
            peft_config=get_peft_config(job.model_args),
            callbacks=[interrupt],
            probe_dataset=job.held_out,
        )
    check_launch(trainer.accelerator)  # again, now that accelerate has chosen its engine
    prepare_training_output(job, trainer)
    if tracked and args.process_index == 0:
        names = run_names(args, str(job.model_args.model_name_or_path), script_args.dataset_name)
        names = missing_names(names, os.environ)
        start_wandb(
            job.output_dir,
            project=script_args.wandb_project,
            entity=script_args.wandb_entity,
            group=script_args.wandb_group or names.get("group"),
            name=args.run_name or names.get("name"),
            tags=names.get("tags"),
            config={
                "variant": variant,
                "weighting": weighting_formula(args),
                "rollouts": rollout_engine(args),
                **asdict(script_args),
            },
            resume=job.goes_on,
        )
    base = BaseScoreCallback(trainer, job.held_out, job.output_dir / BASE_SCORE_FILE)
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(base)
    trainer.add_callback(PanelProgress() if console.is_terminal else LineProgress())

    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    seconds = base.seconds_since()
    after = None if interrupt.stopped else heldout_score(trainer, job.held_out, description="held-out problems, after")
    model_dir = job.output_dir / MODEL_DIR
    if not interrupt.stopped:
        trainer.card_base = str(job.model_args.model_name_or_path)
        trainer.card_section = card_section(job, base.score, after, trainer.state.global_step)
        trainer.create_model_card(model_name=args.hub_model_id or job.output_dir.name)
        save_whole_model(trainer, model_dir, job.output_dir / CARD_FILE)
    if args.process_index == 0:
        write_whole(job.output_dir / LOG_HISTORY_FILE, json.dumps(trainer.state.log_history, indent=1) + "\n")
        figure = training_curves(trainer.state.log_history, f"{variant} on {script_args.dataset_name}")
        curves = None if figure is None else save_figure(figure, job.output_dir / "training_curves")
        last = job.output_dir / f"checkpoint-{trainer.state.global_step}"
        summary = TrainingSummary(
            variant=variant,
            weighting=weighting_formula(args),
            divergence=divergence_formula(args),
            updates=trainer.state.global_step,
            stopped_early=interrupt.stopped,
            before=base.score,
            after=after,
            train_seconds=seconds,
            rollouts=rollout_engine(args),
            model=str(last if interrupt.stopped else model_dir),
            curves=str(curves) if curves else None,
            shift=str(job.output_dir / "shift") if args.probe_steps is not None else None,
            wandb=finish_wandb(base.score, after) if tracked else "off",
        )
        summary.save(job.output_dir / SUMMARY_FILE)
        summary.show(trainer.reward_func_names[0])
        show_diagnosis(RunRecord(trainer.state.log_history, vars(args), asdict(summary), job.output_dir))
    if args.push_to_hub and not interrupt.stopped:
        local = script_args.dataset_name in MADE or Path(script_args.dataset_name).exists()
        trainer.push_to_hub(dataset_name=None if local else script_args.dataset_name)
    trainer.accelerator.wait_for_everyone()


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0; 1 if it cannot go on; 2 after a user's mistake; 130 or 143 after a signal outside training."""
    words = sys.argv[1:] if arguments is None else arguments
    if is_dry_run(words):
        return run_guarded(__file__, lambda: prepare_plan(words), show_plan)
    stopped = "Stopped outside training; --resume_from_checkpoint true goes on from the last checkpoint, if any."
    return run_guarded(__file__, lambda: prepare(arguments), run, stopped)


if __name__ == "__main__":
    sys.exit(main())
