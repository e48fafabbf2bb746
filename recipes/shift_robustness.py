"""Do the findings stand? The same summaries across temperature, top-p, and whose responses they are taken along.

    python recipes/shift_robustness.py                                           # pocket, after `make demo`
    python recipes/shift_robustness.py --temperatures 0.6 1.0 --top_ps 0.7 --kinds rl mixed --output_dir outputs/mine

For each kind of trajectory (RL's, the base's, and a mixed policy's, which follows the base and takes RL's token where
JS > `mixed_epsilon`) and each temperature, responses are sampled and scored; JS is taken between whole distributions
and between those truncated to each top-p. `output_dir` gets `cells/`, `robustness.json`, `robustness.md`, `figures/`
and `report.html`. Started again after a stop it goes on where it was.
"""

from tokenshift.recipes.command_line.start import start_script

if __name__ == "__main__":
    start_script(__file__)  # answers --help and wrong arguments before the imports below, which take seconds

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from accelerate import PartialState
from rich.table import Table

from tokenshift.analysis.cross_sampling.engines import cross_sample
from tokenshift.analysis.cross_sampling.intervention import Intervention
from tokenshift.analysis.sampling.generators import Generator
from tokenshift.analysis.sampling.requests import Request
from tokenshift.analysis.sampling.responses import sample_trajectories
from tokenshift.analysis.shift.report import write_robustness_report
from tokenshift.analysis.shift.robustness import COLUMNS, cell_row, markdown
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.analysis.storage.whole_file import write_whole
from tokenshift.analysis.thresholds import HIGH, LOG_2
from tokenshift.analysis.token_table.scored_run import score_to_table
from tokenshift.recipes.command_line.console import console
from tokenshift.recipes.command_line.entry import run_guarded
from tokenshift.recipes.command_line.output_folder import open_folder
from tokenshift.recipes.command_line.parser import parse_into
from tokenshift.recipes.jobs.analysis.shift import ShiftArguments, ShiftJob, prepare_shift, row_settings

KINDS = ("rl", "base", "mixed")


@dataclass
class RobustnessArguments(ShiftArguments):
    """
    Parameters:
        kinds (`list[str]`):
            Whose responses: `rl`, `base`, `mixed`.
        temperatures, top_ps (`list[float]`):
            Of sampling and of the compared distributions; where these are truncated.
        mixed_epsilon (`float`):
            JS in nats above which the mixed policy takes RL's token.
        resamples (`int`):
            Of the bootstrap.
    """

    kinds: list[str] = field(default_factory=lambda: list(KINDS), metadata={"help": "rl, base, mixed."})
    temperatures: list[float] = field(default_factory=lambda: [0.7, 1.0, 1.3], metadata={"help": "Temperatures."})
    top_ps: list[float] = field(default_factory=lambda: [0.7, 0.9], metadata={"help": "Truncations, below 1."})
    mixed_epsilon: float = field(default=HIGH, metadata={"help": "JS above which the mixed policy takes RL's token."})
    resamples: int = field(default=1000, metadata={"help": "Resamples of the bootstrap."})
    output_dir: str = field(default="outputs/pocket/robustness", metadata={"help": "Where results go."})

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("kinds", "temperatures", "top_ps"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty.")
        if unknown := [kind for kind in self.kinds if kind not in KINDS]:
            raise ValueError(f"kinds names {unknown[0]!r}; known are {', '.join(KINDS)}.")
        if wrong := [value for value in self.top_ps if not 0 < value < 1]:
            raise ValueError(f"top_ps has {wrong[0]}; whole distributions are there anyway, others lie in (0, 1).")
        if wrong := [value for value in self.temperatures if not value > 0]:
            raise ValueError(f"temperatures has {wrong[0]}, which must be > 0.")
        if not 0 <= self.mixed_epsilon <= LOG_2:
            raise ValueError(f"mixed_epsilon={self.mixed_epsilon} must lie in [0, ln 2].")
        if self.use_vllm and "mixed" in self.kinds:
            raise ValueError("The mixed policy cannot be sampled by vLLM; leave 'mixed' out of kinds.")


def prepare(arguments: list[str] | None = None) -> ShiftJob:
    """Parse, check, find the models, load the problems.

    Raises:
        ValueError: for whatever is wrong, in one line.
    """
    job = prepare_shift(parse_into((RobustnessArguments,), arguments)[0])
    open_folder(job, row_settings(job, "kinds", "temperatures", "top_ps", "resamples"))  # cells may be added later
    return job


def run(job: ShiftJob) -> None:
    """Sample and score each cell, and put all into one table."""
    args, state = job.args, PartialState()
    rows: list[dict[str, Any]] = []
    for kind in args.kinds:
        for temperature in args.temperatures:
            cell = RunFolder(job.folder.path / "cells" / f"{kind}_temperature_{temperature:g}")
            sampling = replace(args.sampling, temperature=temperature)
            trajectories = sample_trajectories(
                cell,
                kind,
                job.prompts,
                lambda kind=kind, sampling=sampling: _generator(job, kind, sampling),  # type: ignore[misc]
                job.base.tokenizer,
                job.judge,
                samples=args.samples,
                batch_size=args.batch_size,
            )
            for number, top_p in enumerate(args.top_ps):
                scored = RunFolder(cell.path / f"top_p_{top_p:g}")
                score_to_table(
                    scored,
                    {kind: trajectories},
                    job.scorer(temperature=temperature, top_p=top_p),
                    job.metadata(temperature=temperature, truncated_top_p=top_p),
                    batch_tokens=args.batch_tokens,
                )
                if not state.is_main_process:
                    continue
                place = {"trajectories": kind, "temperature": temperature}
                if number == 0:
                    rows.append(cell_row(scored.table, {**place, "top_p": 1.0}, "js", args.resamples))
                rows.append(cell_row(scored.table, {**place, "top_p": top_p}, "js_top_p", args.resamples))
    if state.is_main_process:
        write_whole(job.folder.path / "robustness.json", json.dumps(rows, indent=1) + "\n")
        write_whole(job.folder.path / "robustness.md", markdown(rows))
        write_robustness_report(job.folder, rows, job.metadata())
        _show(rows)
        for name in ("report.html", "robustness.md", "robustness.json", "figures"):
            print(f"{name:16} {job.folder.path / name}")
    state.wait_for_everyone()
    job.close()


def _generator(job: ShiftJob, kind: str, sampling: Any) -> Generator:
    if kind != "mixed":
        return job.generator(job.rl if kind == "rl" else job.base, sampling)()
    base, rl, tokenizer = job.load(job.base), job.load(job.rl), job.base.tokenizer
    plan = Intervention("js", job.args.mixed_epsilon)

    def mixed(requests: Sequence[Request]) -> list[list[int]]:
        found = cross_sample(base, rl, tokenizer, requests, plan=plan, sampling=sampling)
        return [response.completion_ids for response in found]

    return mixed


def _show(rows: list[dict[str, Any]]) -> None:
    table = Table(title="shares in %; their 95 % intervals are in robustness.md", title_justify="left")
    for name in COLUMNS:
        table.add_column(name, justify="right", overflow="fold")
    for row in rows:
        table.add_row(*(cell.split(" [")[0] for cell in row["cells"]))
    console.print(table)


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0; 2 after a user's mistake; 130 after Ctrl-C."""
    return run_guarded(__file__, lambda: prepare(arguments), run)


if __name__ == "__main__":
    sys.exit(main())
