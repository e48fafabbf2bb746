"""The supervised control: fine-tune a base on correct solutions until it is as accurate as a model after RL.

    python recipes/sft_control.py                                        # pocket, after `make demo`
    python recipes/analyze_shift.py --rl_model outputs/pocket/sft/model --output_dir outputs/pocket/sft/analysis
    python recipes/sft_control.py --wording taught --output_dir outputs/pocket/sft_taught
    python recipes/sft_control.py --base_model Qwen/Qwen2.5-7B --rl_model org/rl-model --dataset_name solved.jsonl \\
        --learning_rate 1e-5 --output_dir outputs/sft

Equally accurate models, one by RL and one by supervision: how dense their shifts are tells what belongs to RL. Takes
every field of TRL's `SFTConfig` and `ModelConfig`. `output_dir` gets `model/` and `summary.json`, which has the
accuracy at each check. Ctrl-C ends with a checkpoint, from which `--resume_from_checkpoint true` goes on.
"""

from tokenshift.recipes.command_line.start import start_script

if __name__ == "__main__":
    start_script(__file__)  # answers --help and wrong arguments before the imports below, which take seconds

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import PrinterCallback, ProgressCallback
from trl import get_peft_config, get_quantization_config

from tokenshift.recipes.command_line.entry import run_guarded
from tokenshift.recipes.command_line.products import MODEL_DIR, SUMMARY_FILE
from tokenshift.recipes.inputs.model_files import mistakes_of_loading
from tokenshift.recipes.jobs.sft.policy_writers import writer_of
from tokenshift.recipes.jobs.sft.preparation import SftJob, prepare, prepare_sft_output
from tokenshift.recipes.jobs.sft.stopping import StopAtAccuracy, StoppableSFTTrainer, Target
from tokenshift.trainer.model_card import CARD_FILE, complete_card, made_section, public_name
from tokenshift.trainer.policy.heldout import HeldOutScore
from tokenshift.trainer.resume.checkpoints import save_whole_model
from tokenshift.trainer.resume.interrupt import CheckpointOnSignal
from tokenshift.trainer.resume.launch_check import check_launch

# Outcomes of a run, as its summary has them.
REACHED = "target reached"
RAN_OUT = "the updates ran out before the target was reached"
STOPPED = "stopped by a signal"


def _target(job: SftJob) -> Target:
    """The accuracy to reach, which is measured where it is a model's."""
    if job.script_args.target_accuracy is not None:
        return Target(job.script_args.target_accuracy, "target_accuracy")
    assert job.rl is not None
    with writer_of(job, job.rl) as generate:
        score = job.held_out.accuracy(generate, job.rl.tokenizer, f"accuracy of {job.rl.name}")
    return Target(score.mean, f"rl_model {job.rl.name}", score)


def _trainer(job: SftJob) -> StoppableSFTTrainer:
    """The trainer of the base model, without TRL's progress bars."""
    args, model_args = job.args, job.model_args
    model: Any = job.base.path
    if job.base.base is not None:
        model = job.load(job.base)  # an adapter, merged
    else:
        args.model_init_kwargs = {
            "revision": job.base.revision or "main",
            "attn_implementation": model_args.attn_implementation,
            "dtype": model_args.dtype,
            **(args.model_init_kwargs if isinstance(args.model_init_kwargs, dict) else {}),
        }
    with mistakes_of_loading("base_model", job.base.name):
        trainer = StoppableSFTTrainer(
            model=model,
            args=args,
            train_dataset=job.train,
            processing_class=job.base.tokenizer,
            quantization_config=get_quantization_config(model_args),
            peft_config=get_peft_config(model_args),
        )
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    return trainer


def run(job: SftJob) -> None:
    """Measure the target, train until it is reached, and leave the model in `output_dir`."""
    target, main_process = _target(job), PartialState().is_main_process
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # the RL model is gone
    if main_process:
        print(f"target {target.score or f'{target.accuracy:.3f}'} from {target.source}; {len(job.train)} solutions")
        if job.left_out:
            print(f"{job.left_out} more are left out: they are longer than max_length, or than the model reads.")
    trainer = _trainer(job)
    check_launch(trainer.accelerator)  # again, now that accelerate has chosen its engine
    prepare_sft_output(job, trainer)
    interrupt, stop = CheckpointOnSignal(), StopAtAccuracy(trainer, job, target)
    trainer.add_callback(interrupt)
    trainer.add_callback(stop)
    trainer.train(resume_from_checkpoint=job.args.resume_from_checkpoint)

    model_dir: Path | None = None
    if not interrupt.stopped:
        model_dir = job.output_dir / MODEL_DIR
        saved: Any = trainer  # a trainer of any kind is saved the same way
        trainer.create_model_card(model_name=job.output_dir.name)
        if main_process:
            complete_card(job.output_dir / CARD_FILE, job.base.name, _card_section(job, target, stop.checks()))
        save_whole_model(saved, model_dir, job.output_dir / CARD_FILE)
    summary = stop.save(STOPPED if interrupt.stopped else REACHED if stop.reached else RAN_OUT, model_dir)
    if main_process:
        _show(summary, stop.checks(), job)
    trainer.accelerator.wait_for_everyone()


def _card_section(job: SftJob, target: Target, checks: list[tuple[int, HeldOutScore]]) -> str:
    """The model card's section on how the control was made."""
    return made_section(
        {
            "base model": f"`{public_name(job.base.name)}`",
            "data": f"`{public_name(job.script_args.dataset_name)}`, {len(job.train)} solutions",
            "accuracy on held-out problems": f"{checks[-1][1]} at update {checks[-1][0]}" if checks else None,
            "trained until": f"accuracy {target.accuracy:.3f}",
            "updates": f"learning rate {job.args.learning_rate:g}, seed {job.args.seed}",
            "made by": f"`tokenshift sft` {version('tokenshift')}; every setting is in the run's `config.yaml`",
        }
    )


def _show(summary: dict[str, Any], checks: list[tuple[int, HeldOutScore]], job: SftJob) -> None:
    """Print how the run ended, where its files are, and the command that analyses the control."""
    last = f"{checks[-1][1]} at update {checks[-1][0]}" if checks else "not measured"
    print(f"{summary['outcome']}: accuracy {last}, target {summary['target']['accuracy']:.3f}")
    if summary["model"] is None:
        print("to go on: the same command with --resume_from_checkpoint true")
        return
    print(f"model    {summary['model']}")
    print(f"summary  {job.output_dir / SUMMARY_FILE}")
    same = "".join(
        f" --{name} {value}"
        for name in ("base_model", "dataset_name")
        if (value := getattr(job.script_args, name)) != "pocket"
    )
    print(
        f"next     python recipes/analyze_shift.py{same} --rl_model {summary['model']} "
        f"--output_dir {job.output_dir / 'analysis'}"
    )


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0; 1 if it cannot go on; 2 after a user's mistake; 130 or 143 after a signal outside training."""
    stopped = "Stopped outside training; --resume_from_checkpoint true goes on from the last checkpoint, if any."
    return run_guarded(__file__, lambda: prepare(arguments), run, stopped)


if __name__ == "__main__":
    sys.exit(main())
