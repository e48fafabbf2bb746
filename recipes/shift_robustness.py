"""Do the findings stand? The same summaries across temperature, top-p, and whose responses they are taken along.

    python recipes/shift_robustness.py                                           # pocket, after `make demo`
    python recipes/shift_robustness.py --temperatures 0.6 1.0 --top_ps 0.7 --kinds rl mixed --output_dir outputs/mine

For each kind of trajectory (RL's, the base's, and a mixed policy's, which follows the base and takes RL's token where
JS at top-p 0.7 > `mixed_epsilon`) and each temperature, responses are sampled and scored; JS is taken between
distributions truncated to each top-p, and between whole ones (`--measure js`: these first), which says how much of the
sparsity is truncation. `output_dir` gets `cells/`, `robustness.json`, `robustness.md`, `figures/`
and `report.html`. Started again after a stop it goes on where it was.
"""

from tokenshift.recipes.command_line.start import start_script

if __name__ == "__main__":
    start_script(__file__)  # answers --help and wrong arguments before the imports below, which take seconds

import json
import sys

from accelerate import PartialState

from tokenshift.analysis.shift.report import write_robustness_report
from tokenshift.analysis.shift.robustness import robustness_markdown
from tokenshift.analysis.storage.whole_file import write_whole
from tokenshift.recipes.command_line.entry import run_guarded
from tokenshift.recipes.command_line.tracking import report_analysis
from tokenshift.recipes.jobs.analysis.headline import robustness_numbers
from tokenshift.recipes.jobs.analysis.planned import PlannedAnalysis, show_plan
from tokenshift.recipes.jobs.analysis.robustness import prepare, robustness_rows
from tokenshift.recipes.jobs.analysis.shift import ShiftJob
from tokenshift.recipes.jobs.analysis.terminal import show_counted, show_robustness

ROBUSTNESS_FILES = ("report.html", "robustness.md", "robustness.json", "figures")


def run(job: ShiftJob | PlannedAnalysis) -> None:
    """Sample and score each setting, and put all into one table; or show the plan."""
    if isinstance(job, PlannedAnalysis):
        show_plan(job)
        return
    state = PartialState()
    rows = robustness_rows(job)
    if state.is_main_process:
        write_whole(job.folder.path / "robustness.json", json.dumps(rows, indent=1) + "\n")
        write_whole(job.folder.path / "robustness.md", robustness_markdown(rows))
        write_robustness_report(job.folder, rows, job.metadata(), job.args.measure)
        report_analysis(job.args, "analysis", [(0, robustness_numbers(rows))], f"robustness of {job.rl.name}")
        show_robustness(rows, job.folder, ROBUSTNESS_FILES)
        show_counted(job.folder, job.metadata())
    state.wait_for_everyone()


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0; 2 after a user's mistake; 130 after Ctrl-C, 143 after SIGTERM."""
    return run_guarded(__file__, lambda: prepare(arguments), run)


if __name__ == "__main__":
    sys.exit(main())
