"""Follow how shifts grow over the checkpoints of a run, along the last one's responses.

    python recipes/analyze_evolution.py                                          # pocket's checkpoints
    python recipes/analyze_evolution.py --base_model Qwen/Qwen2.5-7B --checkpoints 'out/checkpoint-*' \\
        --dataset_name problems.jsonl --output_dir outputs/evolution
    python recipes/analyze_evolution.py --base_model org/base --checkpoints org/rl@step100 org/rl@step200 org/rl@main

The last checkpoint answers the problems once; the base and each checkpoint are scored along those responses, and each
checkpoint answers for itself to be judged. `output_dir` gets `models/NAME/` (tables, responses), `evolution.json`,
`figures/` and `report.html`. Started again after a stop it goes on where it was. JS is that of distributions truncated
to top-p, as published; `--measure js` takes whole ones.
"""

from tokenshift.recipes.command_line.start import start_script

if __name__ == "__main__":
    start_script(__file__)  # answers --help and wrong arguments before the imports below, which take seconds

import json
import sys

from accelerate import PartialState

from tokenshift.analysis.shift.checkpoint_steps import checkpoint_labels, step_of
from tokenshift.analysis.shift.evolution import evolution_rows, evolution_statements
from tokenshift.analysis.shift.report import write_evolution_report
from tokenshift.analysis.storage.whole_file import write_whole
from tokenshift.recipes.command_line.entry import run_guarded
from tokenshift.recipes.command_line.tracking import report_analysis
from tokenshift.recipes.jobs.analysis.evolution import EvolutionJob, prepare, score_checkpoints
from tokenshift.recipes.jobs.analysis.headline import checkpoint_numbers
from tokenshift.recipes.jobs.analysis.planned import PlannedAnalysis, show_plan
from tokenshift.recipes.jobs.analysis.terminal import show_counted, show_statements

EVOLUTION_FILES = ("report.html", "evolution.json", "figures")


def run(job: EvolutionJob | PlannedAnalysis) -> None:
    """Sample, score each checkpoint, compare; or show the plan."""
    if isinstance(job, PlannedAnalysis):
        show_plan(job)
        return
    shift, state = job.shift, PartialState()
    tables, accuracies = score_checkpoints(job)
    if state.is_main_process:
        names = [source.name for source in job.sources]
        steps = [step_of(name) for name in names]
        rows = evolution_rows(
            checkpoint_labels(names),
            steps,
            tables,
            accuracies,
            measure=shift.args.measure,
            resamples=shift.args.resamples,
        )
        write_whole(shift.folder.path / "evolution.json", json.dumps(rows, indent=1) + "\n")
        statements = evolution_statements(rows)
        write_evolution_report(shift.folder, rows, statements, shift.metadata())
        known = [step for step in steps if step is not None]
        places = known if len(set(known)) == len(steps) else range(1, len(steps) + 1)
        logs = [(place, checkpoint_numbers(row)) for place, row in zip(places, rows, strict=True)]
        report_analysis(shift.args, "analysis", logs, f"evolution up to {names[-1]}")
        show_statements({"the last checkpoint's": statements}, shift.folder, EVOLUTION_FILES, shift.args.measure)
        show_counted(shift.folder, shift.metadata())
    state.wait_for_everyone()


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0; 2 after a user's mistake; 130 after Ctrl-C, 143 after SIGTERM."""
    return run_guarded(__file__, lambda: prepare(arguments), run)


if __name__ == "__main__":
    sys.exit(main())
