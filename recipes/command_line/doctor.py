"""`tokenshift doctor OUTPUT_DIR`: what looks wrong in a training, from what it left, without importing torch."""

import json
from collections.abc import Sequence
from pathlib import Path

from tokenshift.analysis.secrets import hide_in_text
from tokenshift.recipes.command_line.plain_parser import PlainParser
from tokenshift.recipes.command_line.start import MISTAKE, as_mistake, report_mistake, show
from tokenshift.trainer.diagnosis.diagnosis import as_data, as_text, diagnose, heading
from tokenshift.trainer.diagnosis.registry import Found, Sign
from tokenshift.trainer.diagnosis.run_record import RunRecord, read_run

FOUND = 3
"""Exit status where a sign of trouble was found; 1 and 2 are those of a run that failed and of a user's mistake."""


def main(arguments: list[str] | None = None) -> int:
    """Look for signs of trouble in the output folders of trainings, and print them.

    Args:
        arguments: The words after `tokenshift doctor`; `sys.argv`'s when None.

    Returns:
        Exit status 0 if no sign was found; 3 if one was; 2 after words that it does not take, or a folder that is no
        training's.
    """
    parser = PlainParser(
        prog="tokenshift doctor",
        description="Say what looks wrong in a training, and which option to change, from its logs. No model is "
        "loaded. A training that is still running is looked at as of its last checkpoint.",
        epilog="Exit status: 0 if no sign of trouble was found, 3 if one was, 2 after a mistake.",
        allow_abbrev=False,
    )
    parser.add_argument("output_dir", nargs="+", type=Path, help="output_dir of a training")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    try:
        given = parser.parse_args(arguments)
        runs = [read_run(folder) for folder in given.output_dir]
    except (ValueError, OSError, RecursionError) as error:
        report_mistake("tokenshift doctor", as_mistake(error))
        return MISTAKE
    diagnoses = [(run, diagnose(run)) for run in runs]
    if given.json:
        data = [as_data(run, findings) for run, findings in diagnoses]
        show(hide_in_text(json.dumps(data[0] if len(data) == 1 else data, indent=2)))
    else:
        show(hide_in_text("\n\n".join(told(run, findings) for run, findings in diagnoses)))
    return FOUND if any(findings for _, findings in diagnoses) else 0


def told(run: RunRecord, findings: Sequence[tuple[Sign, Found]]) -> str:
    """The whole diagnosis of a run, for a person.

    Args:
        run: The run.
        findings: What `diagnose` found in it.
    """
    lines = [str(run.folder), heading(run, findings), as_text(run, findings)]
    return "\n".join(line for line in lines if line)
