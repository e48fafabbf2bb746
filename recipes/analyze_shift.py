"""Which token distributions did RL move, and what moved inside them: from two models to a table, figures and a page.

    python recipes/analyze_shift.py                                              # pocket, after `make demo`
    python recipes/analyze_shift.py --base_model Qwen/Qwen2.5-7B --rl_model org/rl-model@main --samples 32 \\
        --dataset_name problems.jsonl --output_dir outputs/mine
    python recipes/analyze_shift.py --rl_model a/model b/model c/model \\
        --sft_models d/model e/model f/model --output_dir outputs/runs
    python recipes/analyze_shift.py --rl_model dapo=a dapo=b dapo=c \\
        simplerl=d simplerl=e simplerl=f --output_dir outputs/recipes
    accelerate launch --config_file accelerate_configs/ddp.yaml recipes/analyze_shift.py --output_dir outputs/ddp

Responses are sampled and judged (or read from `--trajectories FILE`), both models are scored along them, and
`output_dir` gets `table/` (Parquet, one row per token), `summary.json`, `figures/` and `report.html`. Started again
after a stop it goes on where it was; the rows of a finished one are left as they are. Numbers are of the JS between
distributions truncated to top-p, as published, with that between whole ones beside it; `--measure js` swaps the two.
`--dry_run` prints memory, tokens and files of the analysis, and loads no model.

Several models of one recipe are analyzed one by one, each in a folder of its own under `output_dir/runs/`, and
`output_dir` gets `runs.json`, `figures/` and `report.html` with what is said over runs: verdicts on training need
three runs or more. Given as `name=model`, the models of several recipes are compared too.
"""

from tokenshift.analysis.storage.user_paths import user_path
from tokenshift.recipes.command_line.start import start_script

if __name__ == "__main__":
    start_script(__file__)  # answers --help and wrong arguments before the imports below, which take seconds

import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import PartialState

from tokenshift.analysis.report.statements import Statement
from tokenshift.analysis.sampling.token_ids import context_length, context_reason
from tokenshift.analysis.sampling.trajectories import Trajectory
from tokenshift.analysis.shift.report import check_control, read_summary, write_shift_report
from tokenshift.analysis.shift.runs import Run
from tokenshift.analysis.shift.runs_report import run_of_folder, write_runs_report
from tokenshift.analysis.shift.shift_analysis import SAMPLED, sample_and_score
from tokenshift.analysis.token_table.kept_statistics import KEPT, KeptScorer
from tokenshift.analysis.token_table.one_at_a_time import OneAtATime
from tokenshift.recipes.command_line.entry import LateMistakeError, run_guarded
from tokenshift.recipes.command_line.given_options import refuse_without_effect
from tokenshift.recipes.command_line.output_folder import open_folder
from tokenshift.recipes.command_line.parser import parse_into
from tokenshift.recipes.command_line.tracking import TrackedArguments, report_analysis
from tokenshift.recipes.inputs.contents import content_hash
from tokenshift.recipes.inputs.models import model_ends
from tokenshift.recipes.inputs.trajectory_files import load_trajectories
from tokenshift.recipes.inputs.verification_arguments import VERIFICATION
from tokenshift.recipes.jobs.analysis.dry_run import plan_shift
from tokenshift.recipes.jobs.analysis.headline import shift_numbers
from tokenshift.recipes.jobs.analysis.idle_options import shift_without_effect
from tokenshift.recipes.jobs.analysis.model_groups import named_groups
from tokenshift.recipes.jobs.analysis.planned import PlannedAnalysis, show_plan
from tokenshift.recipes.jobs.analysis.runs import RunsJob, prepare_runs
from tokenshift.recipes.jobs.analysis.shift import (
    MeasuredShiftArguments,
    ShiftJob,
    prepare_shift,
    row_settings,
)
from tokenshift.recipes.jobs.analysis.terminal import (
    show_conclusions,
    show_counted,
    show_runs,
    show_statements,
)
from tokenshift.rewards import load_reward

JUDGING = ("reward_func", "correct_threshold", *VERIFICATION)
"""Options of the verdicts on responses."""


@dataclass
class AnalyzeShiftArguments(TrackedArguments, MeasuredShiftArguments):
    """
    Parameters:
        rl_model (`list[str]`):
            The model after RL, or several of one recipe, over which statements are then made; as `name=model` of
            several recipes.
        sft_models (`list[str]`, *optional*):
            SFT controls, several of one recipe, whose shifts are compared with those of the RL models.
        trajectories (`str`):
            The policies whose responses are scored, `rl`, `base` or `both`; or a file of responses.
        report_responses (`int`):
            How many responses the page shows.
        resamples (`int`):
            Number of resamples of the bootstrap.
        control (`str`, *optional*):
            Output folder of another analysis, the SFT control's, to compare with.
    """

    rl_model: list[str] = field(  # type: ignore[assignment]
        default_factory=lambda: ["outputs/pocket/model"],
        metadata={"help": "The model after RL, or several of one recipe; name=model of several recipes."},
    )
    sft_models: list[str] | None = field(
        default=None, metadata={"help": "SFT models, to compare with several RL models."}
    )
    trajectories: str = field(default="rl", metadata={"help": "rl, base or both, or a .parquet or .jsonl file."})
    report_responses: int = field(default=200, metadata={"help": "Responses that the page shows."})
    resamples: int = field(default=1000, metadata={"help": "Resamples of the bootstrap."})
    control: str | None = field(default=None, metadata={"help": "Folder of the SFT control's analysis."})

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("rl_model", "sft_models"):
            if isinstance(value := getattr(self, name), str):  # a config file's single name
                setattr(self, name, [value])
        if self.control is not None:
            self.control = str(user_path(self.control, "control"))
        if self.report_responses < 0 or self.resamples < 1:
            raise ValueError("report_responses must be at least 0 and resamples at least 1.")

    def without_effect(self, values: Any) -> dict[str, str]:
        """Options that have no effect beside these values of all options, with the reason and what to do."""
        return super().without_effect(values) | shift_without_effect(values)


def analyze_one(job: ShiftJob) -> dict[str, list[Statement]] | None:
    """Sample, score, summarise and draw one model.

    Returns:
        The publication's statements by kind of trajectory, on the main process.
    """
    args, state, folder = job.args, PartialState(), job.folder
    prompts = {prompt.problem_id: prompt.text for prompt in job.prompts}
    given: dict[str, list[Trajectory]] = {}
    if job.given is not None:
        given["file"], prompts = job.given
    scorer = job.scorer()
    if job.scores_while_sampling and not isinstance(scorer, OneAtATime):
        scorer = functools.partial(KeptScorer, folder.units(KEPT), scorer, job.base.tokenizer)
    sample_and_score(
        folder,
        job.base.tokenizer,
        job.prompts,
        {kind: job.writer(kind) for kind in SAMPLED.get(args.trajectories, ())},
        scorer,
        job.metadata(trajectories=args.trajectories, prompts=prompts),
        judge=job.judge,
        samples=args.samples,
        batch_size=args.batch_size,
        batch_tokens=args.batch_tokens,
        explored=args.report_responses,
        given=given,
        state=state,
    )
    if not state.is_main_process:
        return None
    folder.discard(KEPT)
    control = None if args.control is None else Path(args.control)
    return write_shift_report(
        folder, job.base.tokenizer, measure=args.measure, resamples=args.resamples, control=control
    )


def run(job: ShiftJob | RunsJob | PlannedAnalysis) -> None:
    """Analyze the model; of several models each, and then what they say together; or show the plan."""
    if isinstance(job, PlannedAnalysis):
        show_plan(job)
        return
    state = PartialState()
    if isinstance(job, RunsJob):
        _run_all(job)
    elif (judged := analyze_one(job)) is not None:
        show_statements(judged, job.folder, measure=job.args.measure)
        show_counted(job.folder, job.metadata())
        numbers = shift_numbers(read_summary(job.folder.path)["kinds"])
        report_analysis(job.args, "analysis", [(0, numbers)], f"shift of {job.rl.name}")
        show_conclusions(job.folder)
    state.wait_for_everyone()


def _run_all(job: RunsJob) -> None:
    state, measure = PartialState(), job.args.measure
    for number, one in enumerate(job.jobs, start=1):
        if state.is_main_process:
            print(f"Run {number} of {len(job.jobs)}: {one.rl.name}, in {one.folder.path}")
        analyze_one(one)
        state.wait_for_everyone()
    if not state.is_main_process:
        return

    def finished(jobs: Sequence[ShiftJob]) -> list[Run]:
        resamples = job.args.resamples
        return [run_of_folder(one.folder, one.rl.name, measure, resamples=resamples) for one in jobs]

    groups = {name: finished(jobs) for name, jobs in job.groups.items()}
    try:
        summary = write_runs_report(job.folder, groups, finished(job.sft), measure=measure)
    except ValueError as error:  # two models that say the same of every token
        raise LateMistakeError(str(error)) from error
    show_runs(summary, job.folder)


def prepare(arguments: list[str] | None = None) -> ShiftJob | RunsJob | PlannedAnalysis:
    """Parse, check, find the models, load the problems; or plan alone.

    Raises:
        ValueError: for whatever is wrong, in one line.
    """
    args = parse_into((AnalyzeShiftArguments,), arguments)[0]
    sft = args.sft_models or []
    groups = named_groups(args.rl_model, sft)
    names = [name for group in groups.values() for name in group]
    if args.report_to and (len(names) > 1 or sft):
        raise ValueError("report_to takes the numbers of one run; leave it out for several, which share a page.")
    if args.control is not None:
        if len(names) > 1 or sft:
            raise ValueError(f"control={args.control!r} is of a single run; compare several runs by --sft_models.")
        check_control(Path(args.control), args.measure)
    if args.trajectories not in SAMPLED and not user_path(args.trajectories, "trajectories").is_file():
        raise ValueError(f"trajectories={args.trajectories!r} is no file; give rl, base, both or a file's path.")
    if args.dry_run:
        return plan_shift(args, names, sft)
    if len(names) > 1 or sft:
        return prepare_runs(args, groups, sft, prepare_one, settings_of)
    args.rl_model = names[0]
    job = prepare_one(args)
    tokens, states = job.most_tokens, job.most_states_bytes
    open_folder(job, settings_of(job), sampled=tokens, scored=tokens, states=states)
    return job


def prepare_one(args: Any, setting: str = "rl_model") -> ShiftJob:
    """Check a model, and load the problems or the given trajectories.

    Args:
        args: the arguments, with one name as `rl_model`.
        setting: the option that names the model.

    Raises:
        ValueError: for whatever is wrong, in one line.
    """
    from_file = args.trajectories not in SAMPLED
    job = prepare_shift(args, problems=not from_file, setting=setting)
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
    return job


def settings_of(job: ShiftJob) -> dict[str, Any]:
    """The settings that the rows of a model's analysis depend on."""
    settings = row_settings(job, "report_responses", "resamples", "control", "sft_models")
    if job.given is not None:
        settings["trajectories_content"] = content_hash([Path(job.args.trajectories).expanduser()])
    return settings


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0; 2 after a user's mistake; 130 after Ctrl-C, 143 after SIGTERM."""
    return run_guarded(__file__, lambda: prepare(arguments), run)


if __name__ == "__main__":
    sys.exit(main())
