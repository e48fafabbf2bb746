"""Are the tokens that RL moved the cause of what it gained, and of how much? One policy decodes, the other intervenes.

    python recipes/cross_sample.py                                               # pocket, after `make demo`
    python recipes/cross_sample.py --criteria js random delta_logp --budgets 0.02 0.1 --seeds 0 1 2
    python recipes/cross_sample.py --match effective --draws independent --output_dir outputs/pocket/cross_independent
    python recipes/cross_sample.py --criteria js my_criteria.margin              # a function in my_criteria.py
    python recipes/cross_sample.py --base_model Qwen/Qwen2.5-7B --rl_model org/rl-model --samples 32 \\
        --dataset_name problems.jsonl --epsilons 0.1 0.2 --criteria js --output_dir outputs/mine
    accelerate launch --config_file accelerate_configs/ddp.yaml recipes/cross_sample.py --output_dir outputs/ddp

Forward, the base decodes and RL draws the token where the criterion lies above a threshold; backward, the other way.
Thresholds are given, or found on a pilot for wanted shares of tokens, intervened or effectively replaced. `output_dir`
gets `cells/` (Parquet, one row per response), `paths/` (what was decoded, each prefix once), `thresholds.json`,
`cross.json`, `cross.md`, `figures/` and `report.html`. Started again after a stop it goes on where it was; started
with more criteria, budgets or seeds it runs those alone, and decodes only what they add. `--dry_run` prints memory,
policies and tokens, and loads no model.
"""

from tokenshift.recipes.command_line.start import start_script

if __name__ == "__main__":
    start_script(__file__)  # answers --help and wrong arguments before the imports below, which take seconds

import functools
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from accelerate import PartialState
from rich.box import SIMPLE_HEAD
from rich.table import Table

from tokenshift.analysis.cross_sampling.decoding import TREE, Decoding
from tokenshift.analysis.cross_sampling.figures import curve_name
from tokenshift.analysis.cross_sampling.pilot import find_thresholds
from tokenshift.analysis.cross_sampling.report import needed_text, share_text, write_cross_report
from tokenshift.analysis.cross_sampling.sweep import sweep_cells
from tokenshift.analysis.cross_sampling.sweep_run import engines_run, run_cells, token_counts
from tokenshift.analysis.cross_sampling.sweep_trees import SweepTrees, sweep_measured
from tokenshift.analysis.report.numbers import number_text
from tokenshift.analysis.sampling.correctness import correctness_words
from tokenshift.recipes.command_line.console import console
from tokenshift.recipes.command_line.entry import LateMistakeError, run_guarded
from tokenshift.recipes.command_line.tracking import report_analysis
from tokenshift.recipes.inputs.engines import VLLM
from tokenshift.recipes.jobs.analysis.cross_sampling import prepare
from tokenshift.recipes.jobs.analysis.headline import cross_numbers
from tokenshift.recipes.jobs.analysis.planned import PlannedAnalysis, show_plan
from tokenshift.recipes.jobs.analysis.shift import ShiftJob

if TYPE_CHECKING:
    from tokenshift.analysis.cross_sampling.pair_engine import PairDecoder

CROSS_FILES = ("report.html", "cross.md", "cross.json", "figures", "cells")
"""Files of a cross-sampling that are named at the end."""


def run(job: ShiftJob | PlannedAnalysis) -> None:
    """Find thresholds, cross-sample, summarise, draw; or show the plan."""
    if isinstance(job, PlannedAnalysis):
        show_plan(job)
        return
    args, state = job.args, PartialState()
    policies = functools.cache(lambda: (job.load(job.base), job.load(job.rl)))
    decoding = Decoding(
        policies, job.base.tokenizer, args.sampling, args.engine, args.samples, args.batch_size, args.draws
    )
    trees: SweepTrees | None = None
    if args.engine == VLLM:
        decoding = replace(decoding, pair=pair_decoder(job))
    if args.engine == TREE:
        measured = sweep_measured(args.directions, args.swept, args.gammas, args.sharpening or ())
        trees = SweepTrees(job.folder, job.prompts, decoding, measured, state=state)
    thresholds = find_thresholds(job.folder, args.wanted, job.prompts[: args.pilot], decoding, trees=trees)
    try:
        unmet = args.unmet(thresholds)
    except ValueError as error:
        raise LateMistakeError(str(error)) from error
    cells = sweep_cells(
        args.directions,
        args.swept,
        args.epsilons or (),
        thresholds,
        args.gammas,
        args.seeds,
        args.most,
        args.sharpening or (),
    )
    run_cells(job.folder, cells, job.prompts, job.judge, decoding, job.metadata(draws=args.draws), trees=trees)
    if state.is_main_process:
        summary = write_cross_report(
            job.folder,
            cells,
            job.base.tokenizer,
            job.metadata(
                engine=engines_run(job.folder, cells),
                seeds=args.seeds,
                pilot=args.pilot,
                draws=args.draws,
                match=args.match if args.budgets else None,
                **token_counts(job.folder, cells),
                **({} if trees is None else {"tokens_decoded": trees.tokens_decoded}),
            ),
            resamples=args.resamples,
            unmet=unmet,
        )
        _show(summary, correctness_words(job.metadata()))
        report_analysis(args, "cross", [(0, cross_numbers(summary))], f"cross-sampling of {job.rl.name}")
        for name in CROSS_FILES:
            print(f"{name:12} {job.folder.path / name}")
    state.wait_for_everyone()


def _show(summary: dict[str, Any], rule: str | None) -> None:
    levels = summary["levels"]
    names = ("criterion", "inter-\nvened", "effec-\ntive", "effec-\ntive #", "cov-\nered", "accu-\nracy")
    names = (*names, *(("mean\nreward",) if summary["graded"] else ()), "recovery")
    for direction in dict.fromkeys(cell["direction"] for cell in summary["cells"]):
        title = f"{direction}, in %; base {share_text(levels['base'])}, RL {share_text(levels['rl'])} correct"
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        for name in names:
            first = name == "criterion"
            table.add_column(name, justify="left" if first else "right", no_wrap=not first, overflow="fold")
        for cell in summary["cells"]:
            if cell["direction"] == direction:
                count = cell["effective_count"]
                table.add_row(
                    curve_name(cell),
                    *(share_text(cell[name], with_interval=False) for name in ("intervened", "effective")),
                    mean_text(count),
                    *(share_text(cell[name], with_interval=False) for name in ("covered", "accuracy")),
                    *([mean_text(cell["reward"])] if summary["graded"] else []),
                    share_text(cell["recovery"]),
                )
        console.print(table)
    title = "effective replacements a response for 50 % and 90 % of the gain"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("", "criterion", "50 %", "90 %"):
        table.add_column(name, justify="right" if name.endswith("%") else "left")
    for curve in summary["curves"]:
        needed = curve["needed"]["effective_count"].values()
        table.add_row(curve["direction"], curve_name(curve), *map(needed_text, needed))
    if summary["defined"] and summary["curves"]:
        console.print(table)
    if rule is not None:
        console.print(f"Accuracy is the share of responses with {rule}.", highlight=False)
    for statement in summary["statements"]:
        said = f"Published: {statement['text']}. Here: {statement['verdict']}; {statement['measured']}."
        console.print(said, highlight=False)
    for remark in summary["remarks"]:
        console.print(remark, highlight=False)


def pair_decoder(job: ShiftJob) -> "PairDecoder":
    """The decoder that uses the pair engine; vLLM is imported here."""
    from tokenshift.analysis.cross_sampling.pair_engine import PairDecoder

    return PairDecoder(job.pair_engine(), job.vocabulary)


def mean_text(entry: dict[str, Any] | None) -> str:
    """A number without its interval; `-` for none."""
    return number_text(None if entry is None else entry["value"])


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0; 2 after a user's mistake; 130 after Ctrl-C, 143 after SIGTERM."""
    return run_guarded(__file__, lambda: prepare(arguments), run)


if __name__ == "__main__":
    sys.exit(main())
