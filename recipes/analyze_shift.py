"""Which token distributions did RL move, and what moved inside them: from two models to a table, figures and a page.

    python recipes/analyze_shift.py                                              # pocket, after `make demo`
    python recipes/analyze_shift.py --base_model Qwen/Qwen2.5-7B --rl_model org/rl-model@main --samples 32 \\
        --dataset_name problems.jsonl --output_dir outputs/mine
    accelerate launch --config_file accelerate_configs/ddp.yaml recipes/analyze_shift.py --output_dir outputs/ddp

Responses are sampled and judged (or read from `--trajectories FILE`), both models are scored along them, and
`output_dir` gets `table/` (Parquet, one row per token), `summary.json`, `figures/` and `report.html`. Started again
after a stop it goes on where it was; the rows of a finished one are left as they are. Numbers are of the JS between
distributions truncated to top-p, as published, with that between whole ones beside it; `--measure js` swaps the two.
"""

from tokenshift.recipes.command_line.start import start_script

if __name__ == "__main__":
    start_script(__file__)  # answers --help and wrong arguments before the imports below, which take seconds

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import PartialState

from tokenshift.analysis.sampling.token_ids import context_length, context_reason
from tokenshift.analysis.sampling.trajectories import Trajectory
from tokenshift.analysis.shift.report import check_control, write_shift_report
from tokenshift.analysis.shift.shift_analysis import SAMPLED, sample_and_score
from tokenshift.recipes.command_line.entry import run_guarded
from tokenshift.recipes.command_line.given_options import refuse_without_effect
from tokenshift.recipes.command_line.output_folder import open_folder
from tokenshift.recipes.command_line.parser import parse_into
from tokenshift.recipes.inputs.contents import content_hash
from tokenshift.recipes.inputs.models import model_ends
from tokenshift.recipes.inputs.trajectory_files import load_trajectories
from tokenshift.recipes.jobs.analysis.shift import (
    MeasuredShiftArguments,
    ShiftJob,
    prepare_shift,
    row_settings,
)
from tokenshift.recipes.jobs.analysis.terminal import show_counted, show_statements
from tokenshift.rewards import load_reward

WITHOUT_SAMPLING = (
    *("dataset_name", "dataset_config", "dataset_split", "prompt_column", "solution_column"),
    *("system_prompt", "prompt_template", "size", "samples", "seed", "max_new_tokens", "batch_size", "use_vllm"),
)
"""Options that have no effect where the trajectories come from a file."""

JUDGING = ("reward_func", "correct_threshold", "verify_workers", "verify_timeout", "verify_decimal_comma")
"""Options of the verdicts on responses."""


@dataclass
class AnalyzeShiftArguments(MeasuredShiftArguments):
    """
    Parameters:
        trajectories (`str`):
            The policies whose responses are scored, `rl`, `base` or `both`; or a file of responses.
        report_responses (`int`):
            How many responses the page shows.
        resamples (`int`):
            Number of resamples of the bootstrap.
        control (`str`, *optional*):
            Output folder of another analysis, the SFT control's, to compare with.
    """

    trajectories: str = field(default="rl", metadata={"help": "rl, base or both, or a .parquet or .jsonl file."})
    report_responses: int = field(default=200, metadata={"help": "Responses that the page shows."})
    resamples: int = field(default=1000, metadata={"help": "Resamples of the bootstrap."})
    control: str | None = field(default=None, metadata={"help": "Folder of the SFT control's analysis."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.control is not None:
            self.control = str(Path(self.control).expanduser())
        if self.report_responses < 0 or self.resamples < 1:
            raise ValueError("report_responses must be at least 0 and resamples at least 1.")

    def without_effect(self, values: Any) -> dict[str, str]:
        """Options that have no effect beside these values of all options, with the reason and what to do."""
        reasons = super().without_effect(values)
        if self.trajectories not in SAMPLED:
            reason = f"trajectories={self.trajectories!r} brings problems and responses of its own; leave it out."
            reasons |= dict.fromkeys(WITHOUT_SAMPLING, reason)
        return reasons


def run(job: ShiftJob) -> None:
    """Sample, score, summarise, draw."""
    args, state, folder = job.args, PartialState(), job.folder
    prompts = {prompt.problem_id: prompt.text for prompt in job.prompts}
    given: dict[str, list[Trajectory]] = {}
    if job.given is not None:
        given["file"], prompts = job.given
    sources = {"rl": job.rl, "base": job.base}
    sample_and_score(
        folder,
        job.base.tokenizer,
        job.prompts,
        {kind: job.generator(sources[kind]) for kind in SAMPLED.get(args.trajectories, ())},
        job.scorer(),
        job.metadata(trajectories=args.trajectories, prompts=prompts),
        judge=job.judge,
        samples=args.samples,
        batch_size=args.batch_size,
        batch_tokens=args.batch_tokens,
        explored=args.report_responses,
        given=given,
        state=state,
    )
    if state.is_main_process:
        control = None if args.control is None else Path(args.control)
        judged = write_shift_report(
            folder, job.base.tokenizer, measure=args.measure, resamples=args.resamples, control=control
        )
        show_statements(judged, folder, measure=args.measure)
        show_counted(folder, job.metadata())
    state.wait_for_everyone()


def prepare(arguments: list[str] | None = None) -> ShiftJob:
    """Parse, check, find the models, load the problems.

    Raises:
        ValueError: for whatever is wrong, in one line.
    """
    args = parse_into((AnalyzeShiftArguments,), arguments)[0]
    if args.control is not None:
        check_control(Path(args.control), args.measure)
    from_file = args.trajectories not in SAMPLED
    if from_file and not Path(args.trajectories).expanduser().is_file():
        raise ValueError(f"trajectories={args.trajectories!r} is no file; give rl, base, both or a file's path.")
    job = prepare_shift(args, problems=not from_file)
    if from_file:
        configs = [source.config for source in (job.base, job.rl)]
        contexts = [
            (length, context_reason(config)) for config in configs if (length := context_length(config)) is not None
        ]
        context, reason = min(contexts, default=(None, ""))
        job.given = load_trajectories(
            args.trajectories,
            job.base.tokenizer,
            load_reward(args.reward_func),
            context,
            context_reason=reason,
            vocabulary=min(config.get_text_config().vocab_size for config in configs),
            ends=model_ends(job.base) | model_ends(job.rl),
            chat_template_kwargs=args.template_kwargs,
            correct_threshold=args.correct_threshold,
        )
        if all(trajectory.reward is None for trajectory in job.given[0]):
            reason = f"no response of trajectories={args.trajectories!r} is judged by it; leave it out."
            refuse_without_effect((args,), dict.fromkeys(JUDGING, reason))
    settings = row_settings(job, "report_responses", "resamples", "control")
    if from_file:
        settings["trajectories_content"] = content_hash([Path(args.trajectories).expanduser()])
    open_folder(job, settings)
    return job


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0; 2 after a user's mistake; 130 after Ctrl-C."""
    return run_guarded(__file__, lambda: prepare(arguments), run)


if __name__ == "__main__":
    sys.exit(main())
