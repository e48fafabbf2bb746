"""How well does a model answer, and is it better than another? Mean@k, pass@k and majority@k with intervals.

    python recipes/evaluate.py                                                   # pocket, after `make demo`
    python recipes/evaluate.py --model org/rl-model --datasets problems.jsonl org/more --samples 32 --ks 1 8 32 \\
        --output_dir outputs/mine
    python recipes/evaluate.py --model org/rl-model --against Qwen/Qwen2.5-7B --datasets problems.jsonl \\
        --output_dir outputs/mine
    accelerate launch --config_file accelerate_configs/ddp.yaml recipes/evaluate.py --output_dir outputs/ddp

Each model answers each problem of each set `samples` times, two models with the same random numbers, so that they are
compared problem by problem. `output_dir` gets `responses/` (Parquet, one row per response), `evaluation.json`,
`evaluation.md` and `figures/`. Started again after a stop it goes on where it was; started with another model or set
it samples that alone. `--dry_run` prints memory and tokens, and loads no model.
"""

from tokenshift.recipes.command_line.start import start_script

if __name__ == "__main__":
    start_script(__file__)  # answers --help and wrong arguments before the imports below, which take seconds

import sys
from typing import Any

import pyarrow as pa
from accelerate import PartialState
from rich.box import SIMPLE_HEAD
from rich.table import Table

from tokenshift.analysis.evaluation.report import (
    COMPARISON_COLUMNS,
    comparison_texts,
    metric_text,
    with_unit,
    write_evaluation_report,
)
from tokenshift.analysis.evaluation.responses import evaluate_model
from tokenshift.recipes.command_line.console import console
from tokenshift.recipes.command_line.entry import run_guarded
from tokenshift.recipes.command_line.tracking import report_analysis
from tokenshift.recipes.jobs.analysis.evaluation import EvaluationJob, prepare
from tokenshift.recipes.jobs.analysis.headline import evaluation_numbers
from tokenshift.recipes.jobs.analysis.planned import PlannedAnalysis, show_plan

EVALUATION_FILES = ("evaluation.md", "evaluation.json", "figures", "responses")
"""Files of an evaluation that are named at the end."""


def run(job: EvaluationJob | PlannedAnalysis) -> None:
    """Sample and grade responses, then write and show what came of them; or show the plan."""
    if isinstance(job, PlannedAnalysis):
        show_plan(job)
        return
    args, state = job.args, PartialState()
    tables = [
        evaluate_model(
            job.folder,
            job.subject(name),
            job.sets(name),
            samples=args.samples,
            seed=args.seed,
            batch_size=args.batch_size,
            metadata=job.metadata(),
        )
        for name in job.models
    ]
    if state.is_main_process:
        summary = write_evaluation_report(
            job.folder,
            pa.concat_tables(tables),
            job.metadata(),
            samples=args.samples,
            ks=args.ks,
            resamples=args.resamples,
            notes=job.notes,
        )
        _show(summary)
        report_analysis(
            args, "evaluation", [(0, evaluation_numbers(summary))], f"evaluation of {summary['models'][0]}"
        )
        for name in EVALUATION_FILES:
            print(f"{name:16} {job.folder.path / name}")
    state.wait_for_everyone()


def _show(summary: dict[str, Any]) -> None:
    models = summary["models"]
    for name, group in summary["groups"].items():
        title = f"{name}: {group['problems']:,} problems x {summary['samples']} responses, 95 % intervals"
        table = _table(title, [*(["A", "B"] if len(models) > 1 else models)])
        for metric in summary["metrics"]:
            table.add_row(
                with_unit(metric), *(metric_text(metric, group["models"][model][metric]) for model in models)
            )
        console.print(table)
        if "comparison" in group:
            table = _table(f"{name}: A - B, paired by problem", [*COMPARISON_COLUMNS])
            for metric, comparison in group["comparison"].items():
                table.add_row(with_unit(metric), *comparison_texts(metric, comparison))
            console.print(table)
    if len(models) > 1:
        for letter, model in zip("AB", models, strict=True):
            console.print(f"{letter}: {model}", highlight=False)
        meaning = "the smallest true difference found with a power of 80 % at a level of 5 %"
        console.print(f"{COMPARISON_COLUMNS[-1]}: {meaning}")
    for note in summary["notes"]:
        console.print(note, highlight=False)


def _table(title: str, columns: list[str]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right", overflow="fold")
    return table


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0; 2 after a user's mistake; 130 after Ctrl-C, 143 after SIGTERM."""
    return run_guarded(__file__, lambda: prepare(arguments), run)


if __name__ == "__main__":
    sys.exit(main())
