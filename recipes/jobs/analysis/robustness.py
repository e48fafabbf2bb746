"""Arguments of the analysis across settings, its preparation, and the scoring of every setting."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from accelerate import PartialState

from tokenshift.analysis.cross_sampling.engines import cross_sample
from tokenshift.analysis.cross_sampling.intervention import Intervention
from tokenshift.analysis.sampling.generators import Generator, Sampling
from tokenshift.analysis.sampling.requests import Request
from tokenshift.analysis.sampling.responses import sample_trajectories
from tokenshift.analysis.shift.robustness import robustness_row
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.analysis.thresholds import HIGH, LOG_2
from tokenshift.analysis.token_table.measure import DEFAULT_MEASURE, FULL_JS, TRUNCATED_JS, check_measure
from tokenshift.analysis.token_table.scored_run import STATES, score_to_table
from tokenshift.recipes.command_line.output_folder import open_folder
from tokenshift.recipes.command_line.parser import parse_into
from tokenshift.recipes.command_line.tracking import TrackedArguments
from tokenshift.recipes.inputs.engines import VLLM
from tokenshift.recipes.jobs.analysis.dry_run import plan_robustness
from tokenshift.recipes.jobs.analysis.idle_options import robustness_without_effect
from tokenshift.recipes.jobs.analysis.planned import PlannedAnalysis
from tokenshift.recipes.jobs.analysis.shift import MeasuredShiftArguments, ShiftJob, prepare_shift, row_settings

TRAJECTORY_KINDS = ("rl", "base", "mixed")
"""The policies whose responses the analysis can be taken along."""


@dataclass
class RobustnessArguments(TrackedArguments, MeasuredShiftArguments):
    """
    Parameters:
        kinds (`list[str]`):
            The policies whose responses are used: `rl`, `base`, `mixed`.
        temperatures, top_ps (`list[float]`):
            Temperatures of sampling and of the compared distributions; the top-p at which these are truncated.
        mixed_criterion (`str`), mixed_epsilon (`float`):
            The mixed policy takes RL's token where this measure, `js_top_p` (as published) or `js`, lies above so many
            nats.
        resamples (`int`):
            Number of resamples of the bootstrap.
    """

    kinds: list[str] = field(default_factory=lambda: list(TRAJECTORY_KINDS), metadata={"help": "rl, base, mixed."})
    temperatures: list[float] = field(default_factory=lambda: [0.7, 1.0, 1.3], metadata={"help": "Temperatures."})
    top_ps: list[float] = field(default_factory=lambda: [0.7, 0.9, 0.95], metadata={"help": "Truncations, below 1."})
    mixed_criterion: str = field(
        default=DEFAULT_MEASURE, metadata={"help": "What decides where the mixed policy takes RL's token."}
    )
    mixed_epsilon: float = field(
        default=HIGH, metadata={"help": "Nats above which the mixed policy takes RL's token."}
    )
    resamples: int = field(default=1000, metadata={"help": "Resamples of the bootstrap."})
    output_dir: str = field(default="outputs/pocket/robustness", metadata={"help": "Where results go."})

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("kinds", "temperatures", "top_ps"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty.")
        if unknown := [kind for kind in self.kinds if kind not in TRAJECTORY_KINDS]:
            raise ValueError(f"kinds names {unknown[0]!r}; known are {', '.join(TRAJECTORY_KINDS)}.")
        if wrong := [value for value in self.top_ps if not 0 < value < 1]:
            raise ValueError(f"top_ps has {wrong[0]}; whole distributions are there anyway, others lie in (0, 1).")
        if wrong := [value for value in self.temperatures if not value > 0]:
            raise ValueError(f"temperatures has {wrong[0]}, which must be > 0.")
        check_measure(self.mixed_criterion, "mixed_criterion")
        if not 0 <= self.mixed_epsilon <= LOG_2:
            raise ValueError(f"mixed_epsilon={self.mixed_epsilon} must lie in [0, ln 2].")
        if self.use_vllm and "mixed" in self.kinds:
            raise ValueError("The mixed policy cannot be sampled by vLLM; leave 'mixed' out of kinds.")

        if self.one_model_at_a_time and "mixed" in self.kinds:
            raise ValueError(
                "one_model_at_a_time=True cannot be with the mixed policy, which asks both models at every token; "
                "leave mixed out of kinds (--kinds rl base), or spread the two by device_map."
            )

    def without_effect(self, values: Any) -> dict[str, str]:
        """Options that have no effect beside these values of all options, with the reason and what to do."""
        return super().without_effect(values) | robustness_without_effect(values)


def prepare(arguments: list[str] | None = None) -> ShiftJob | PlannedAnalysis:
    """Parse, check, find the models, load the problems; or plan alone.

    Raises:
        ValueError: for whatever is wrong, in one line.
    """
    args = parse_into((RobustnessArguments,), arguments)[0]
    if args.dry_run:
        return plan_robustness(args)
    job = prepare_shift(args)
    settings = row_settings(job, "kinds", "temperatures", "top_ps", "resamples")  # cells may be added later
    tokens = len(job.args.kinds) * len(job.args.temperatures) * job.most_tokens // 2
    states = job.states_bytes(job.most_tokens // 2)
    open_folder(job, settings, sampled=tokens, scored=(1 + len(job.args.top_ps)) * tokens, states=states)
    return job


def robustness_rows(job: ShiftJob) -> list[dict[str, Any]]:
    """Sample and score what is not on disk yet, for every kind of trajectory, temperature and top-p.

    Args:
        job: the analysis.

    Returns:
        The rows of `robustness_row`, on the main process; other processes get none. Under each setting those of the
        measure that counts come first.
    """
    args, rows = job.args, []
    main = PartialState().is_main_process
    for kind in args.kinds:
        for temperature in args.temperatures:
            folder = RunFolder(job.folder.path / "cells" / f"{kind}_temperature_{temperature:g}")
            sampling = replace(args.sampling, temperature=temperature)
            trajectories = sample_trajectories(
                folder,
                kind,
                job.prompts,
                lambda kind=kind, sampling=sampling: _generator(job, kind, sampling),  # type: ignore[misc]
                job.base.tokenizer,
                job.judge,
                samples=args.samples,
                batch_size=args.batch_size,
            )
            setting = {"trajectories": kind, "temperature": temperature}
            tables = {}
            for top_p in args.top_ps:
                scored = RunFolder(folder.path / f"top_p_{top_p:g}")
                score_to_table(
                    scored,
                    {kind: trajectories},
                    job.scorer(waiting=folder, temperature=temperature, top_p=top_p),
                    job.metadata(temperature=temperature, truncated_top_p=top_p),
                    batch_tokens=args.batch_tokens,
                )
                tables[top_p] = scored.table
            if main:
                folder.discard(STATES)
                rows += _setting_rows(tables, setting, args.measure, args.resamples)
    return rows


def _setting_rows(
    tables: Mapping[float, Path], setting: Mapping[str, Any], measure: str, resamples: int
) -> list[dict[str, Any]]:
    """The rows of one kind of trajectory and temperature: those of the measure that counts come first.

    Args:
        tables: the per-token tables by top-p.
        setting: `trajectories` and `temperature`.
        measure: `js_top_p`, or `js`, whose numbers are the same in every table.
        resamples: number of resamples of the bootstrap.
    """
    truncated = [
        robustness_row(table, {**setting, "top_p": top_p}, TRUNCATED_JS, resamples) for top_p, table in tables.items()
    ]
    whole = [robustness_row(next(iter(tables.values())), {**setting, "top_p": 1.0}, FULL_JS, resamples)]
    return whole + truncated if measure == FULL_JS else truncated + whole


def _generator(job: ShiftJob, kind: str, sampling: Sampling) -> Generator:
    if kind != "mixed":
        return job.generator(job.rl if kind == "rl" else job.base, sampling)()
    plan = Intervention(job.args.mixed_criterion, job.args.mixed_epsilon)
    if job.args.engine == VLLM:
        return _mixed_by_engine(job, plan, sampling)
    base, rl, tokenizer = job.load(job.base), job.load(job.rl), job.base.tokenizer

    def mixed(requests: Sequence[Request]) -> list[list[int]]:
        responses = cross_sample(base, rl, tokenizer, requests, plan=plan, sampling=sampling)
        return [response.completion_ids for response in responses]

    return mixed


def _mixed_by_engine(job: ShiftJob, plan: Intervention, sampling: Sampling) -> Generator:
    """The mixed policy in the pair engine."""
    from tokenshift.analysis.cross_sampling.pair_engine import PairDecoder

    decoder = PairDecoder(job.pair_engine(), job.vocabulary)

    def mixed(requests: Sequence[Request]) -> list[list[int]]:
        return [response.completion_ids for response in decoder("forward", plan, requests, sampling)]

    return mixed
